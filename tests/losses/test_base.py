"""What every loss inherits: one shape on both sides, and means that leave ignored pixels out.

N image, H W position.
"""

from __future__ import annotations

import pytest
import torch

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import (
    DistillationLoss,
    check_positive,
    check_same_shape,
    comparable,
    correlation,
    mean_over_valid,
    unit,
    valid_positions,
    weight_of,
    weighted_mean,
)


def test_mean_without_labels_counts_everything() -> None:
    values = torch.arange(12.0).reshape(2, 2, 3)
    labels = torch.full((2, 2, 3), 255)
    assert mean_over_valid(values, None, 255) == 5.5
    assert mean_over_valid(values, labels, None) == 5.5


def test_mean_leaves_ignored_pixels_out() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 100.0]]])
    labels = torch.tensor([[[0, 7], [0, 255]]])
    assert mean_over_valid(values, labels, 255) == 2
    assert mean_over_valid(values, labels, 7) == pytest.approx(104 / 3)
    assert mean_over_valid(values, labels, 0) == 51


def test_images_weigh_by_their_valid_pixels() -> None:
    values = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    labels = torch.tensor([[[255, 255], [255, 0]], [[0, 0], [0, 255]]])
    assert mean_over_valid(values, labels, 255) == 0.75


def test_ignored_values_may_be_anything() -> None:
    values = torch.tensor([[[1.0, float('nan')], [float('inf'), 3.0]]])
    labels = torch.tensor([[[0, 255], [255, 0]]])
    assert mean_over_valid(values, labels, 255) == 2


def test_no_valid_pixel_gives_zero_with_a_gradient_path() -> None:
    values = torch.ones(1, 2, 2, requires_grad=True)
    result = mean_over_valid(values, torch.full((1, 2, 2), 255), 255)
    result.backward()
    assert result == 0
    assert torch.equal(values.grad, torch.zeros(1, 2, 2))


def test_labels_are_brought_to_the_grid_of_the_values_by_nearest_neighbour() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    coarse = torch.tensor([[[255, 0]]])
    assert mean_over_valid(values, coarse, 255) == 3
    assert mean_over_valid(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), coarse, 255) == 3.5
    fine = torch.tensor([[[0, 0, 255, 255], [0, 0, 255, 255], [0, 0, 0, 0], [0, 0, 0, 0]]])
    assert mean_over_valid(values, fine, 255) == pytest.approx(8 / 3)


def test_values_without_positions_all_count() -> None:
    assert mean_over_valid(torch.tensor([1.0, 3.0]), torch.full((2, 4, 4), 255), 255) == 2


def test_shapes_that_differ_are_named() -> None:
    check_same_shape(torch.zeros(2, 3), torch.zeros(2, 3))
    message = r'tensors of one shape but got \(2, 3\) and \(2, 4\)\. Tap layers of equal shape'
    with pytest.raises(TapError, match=message):
        check_same_shape(torch.zeros(2, 3), torch.zeros(2, 4))


def test_settings_must_be_positive_and_finite() -> None:
    assert check_positive(2.5, 'temperature', 'Try 1.') == 2.5
    for value in (0, -1.0, float('nan'), float('inf')):
        with pytest.raises(ConfigError, match=rf'Expected a finite temperature > 0 but got {value}\. Try 1\.'):
            check_positive(value, 'temperature', 'Try 1.')


def test_sides_are_compared_in_float32_or_better_without_the_teachers_graph() -> None:
    for given, used in ((torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64,) * 2):
        sides = comparable(*(torch.ones(1, 2, dtype=given, requires_grad=True) for _ in range(2)))
        assert [(side.dtype, side.requires_grad) for side in sides] == [(used, True), (used, False)]


def test_labels_that_have_no_grid_say_nothing() -> None:
    labels = torch.tensor([[[0, 255]]])
    assert valid_positions(labels, 255, (1, 1, 2)).tolist() == [[[True, False]]]
    assert valid_positions(labels, (0, 255), (1, 1, 2)).tolist() == [[[False, False]]]
    assert valid_positions(labels, 255, (1,)) is None
    assert valid_positions(labels, None, (1, 1, 2)) is None
    assert valid_positions(None, 255, (1, 1, 2)) is None


def test_weighted_mean_by_hand() -> None:
    values = torch.tensor([1.0, 4.0, float('nan')], requires_grad=True)
    weight = torch.tensor([3.0, 1.0, 0.0])
    mean = weighted_mean(values, weight)
    assert float(mean.detach()) == pytest.approx(7 / 4)
    assert torch.autograd.grad(mean, values)[0].tolist() == [0.75, 0.25, 0]
    assert float(weighted_mean(values[:2].detach(), 1e-3 * weight[:2])) == pytest.approx(7 / 4)
    assert weighted_mean(values[:2], None) == 2.5


@pytest.mark.parametrize('weight', [None, torch.zeros(0), torch.zeros(0, dtype=torch.bool)])
def test_mean_over_nothing_is_zero_with_a_gradient_path(weight: torch.Tensor | None) -> None:
    values = torch.zeros(0, requires_grad=True)
    mean = weighted_mean(values, weight)
    assert mean == 0
    assert mean.requires_grad


def test_no_weight_at_all_is_zero_with_a_gradient_path() -> None:
    values = torch.ones(3, requires_grad=True)
    mean = weighted_mean(values, torch.zeros(3))
    mean.backward()
    assert mean == 0
    assert values.grad.tolist() == [0, 0, 0]


def test_weights_are_one_for_each_value_and_zero_where_nothing_is_valid() -> None:
    values, weight, valid = torch.zeros(3), torch.tensor([0.5, 2.0, 1.0]), torch.tensor([True, False, True])
    assert weight_of(values, None) is None
    assert weight_of(values, None, valid) is valid
    assert weight_of(values, weight) is weight
    assert weight_of(values, weight, valid).tolist() == [0.5, 0, 1]
    with pytest.raises(TapError, match=r'Expected weights of shape \(3,\) but got \(3, 1\)\. Give one weight >= 0'):
        weight_of(values, weight[:, None])


def test_unit_vectors_and_those_too_short_to_have_a_direction() -> None:
    values = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-5, 4e-5], [3e-14, 4e-14]], requires_grad=True)
    units = unit(values, 1)
    torch.testing.assert_close(units.detach(), torch.tensor([[0.6, 0.8], [0, 0], [0.6, 0.8], [0, 0]]))
    units[:, 0].sum().backward()
    assert torch.equal(values.grad[[1, 3]], torch.zeros(2, 2))
    torch.testing.assert_close(values.grad[0], torch.tensor([0.128, -0.096]))  # (1 - 0.36) / 5, -0.48 / 5


def test_correlation_of_the_valid_values() -> None:
    """Centred: (-2, -1, 3) and (2, -4, 2); a side that is constant has none."""
    student = torch.tensor([[1.0, 2.0, 6.0, 99.0], [5.0, 5.0, 5.0, 99.0]], requires_grad=True)
    teacher = torch.tensor([[6.0, 0.0, 6.0, float('nan')], [1.0, 2.0, 3.0, float('nan')]])
    valid = torch.tensor([True, True, True, False])
    r, ours, theirs = correlation(student, teacher, (1,), valid)
    torch.testing.assert_close(r.detach(), torch.tensor([6 / (14 * 24) ** 0.5, 0]))
    assert (ours.tolist(), theirs.tolist()) == ([True, False], [True, True])
    torch.testing.assert_close(correlation(student[:, :3], teacher[:, :3], (1,))[0], r)
    (gradient,) = torch.autograd.grad(r.sum(), student)
    assert gradient[0, 3] == 0
    assert gradient[0, 0] != 0
    assert gradient[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(('scale', 'shift'), [(1e-9, 0), (1e9, 0), (1, 1000)])
def test_correlation_depends_neither_on_scale_nor_shift(scale: float, shift: float) -> None:
    student, teacher = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([6.0, 0.0, 6.0])
    moved = correlation(scale * student + shift, scale * teacher - shift, (0,))[0]
    torch.testing.assert_close(moved, correlation(student, teacher, (0,))[0], rtol=1e-5, atol=1e-6)


def test_gradient_of_the_correlation_needs_none_through_the_mean() -> None:
    sides = [torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (0, 1)]
    valid = torch.rand(2, 1, 4, generator=torch.Generator().manual_seed(2)) > 0.3
    student = sides[0].requires_grad_()
    for mask in (None, valid):
        assert torch.autograd.gradcheck(
            lambda values, mask=mask: correlation(values, sides[1], (0, 2), mask)[0], student
        )


def test_a_loss_without_arithmetic_cannot_be_used() -> None:
    with pytest.raises(NotImplementedError):
        DistillationLoss()(torch.zeros(1, 1), torch.zeros(1, 1))
