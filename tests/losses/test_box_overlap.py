"""Laws of the overlap distance between boxes, against the formula in float64.

M box.
"""

from __future__ import annotations

import loss_laws
import pytest
import torch
from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses import BoxOverlapLoss, giou_distance

CENTRES = torch.tensor([[10.0, 12], [40, 30], [25, 25], [60, 10]])
SIZES = torch.tensor([[8.0, 6], [20, 30], [5, 5], [30, 4]])
TEACHER = torch.cat([CENTRES - SIZES / 2, CENTRES + SIZES / 2], 1)
STUDENT = TEACHER + torch.tensor([[1.0, 2, 3, 4], [-3, -2, 4, 5], [20, 20, 20, 20], [2, 1, -3, -1]])


def independent(student: Tensor, teacher: Tensor) -> list[float]:
    """Write the formula out, box by box, on Python's numbers."""
    distances = []
    for (a, b, c, d), (e, f, g, h) in zip(student.tolist(), teacher.tolist(), strict=True):
        common = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
        union = (c - a) * (d - b) + (g - e) * (h - f) - common
        hull = (max(c, g) - min(a, e)) * (max(d, h) - min(b, f))
        distances.append(1 - common / union + (hull - union) / hull)
    return distances


def test_value_of_the_formula() -> None:
    expected = independent(STUDENT, TEACHER)
    for n in range(4):
        assert float(giou_distance(STUDENT[[n]], TEACHER[[n]])) == pytest.approx(expected[n], rel=1e-5)
    assert float(giou_distance(STUDENT, TEACHER)) == pytest.approx(sum(expected) / 4, rel=1e-5)
    assert expected[2] > 1  # apart


@pytest.mark.parametrize(
    'law',
    [
        loss_laws.gradient_reaches_only_the_student,
        loss_laws.gradient_equals_differences,
        loss_laws.half_precision_is_computed_in_float32,
        loss_laws.autocast_changes_nothing,
        loss_laws.one_image_suffices,
    ],
)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(giou_distance, STUDENT, TEACHER)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
def test_invariant_to_moving_and_scaling_both(scale: float) -> None:
    shift = torch.tensor([7.0, -3, 7, -3])
    moved = giou_distance(scale * (STUDENT + shift), scale * (TEACHER + shift))
    torch.testing.assert_close(moved, giou_distance(STUDENT, TEACHER), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
def test_zero_at_identity_whatever_the_unit(scale: float) -> None:
    assert float(giou_distance(scale * TEACHER, scale * TEACHER)) == pytest.approx(0, abs=1e-5)


def test_weighted_by_the_teachers_confidence() -> None:
    expected = independent(STUDENT, TEACHER)
    value = giou_distance(STUDENT, TEACHER, weight=torch.tensor([0.0, 0.5, 0.25, 0]))
    assert float(value) == pytest.approx((2 * expected[1] + expected[2]) / 3, rel=1e-5)
    batched = giou_distance(STUDENT.reshape(2, 2, 4), TEACHER.reshape(2, 2, 4), weight=torch.ones(2, 2))
    assert float(batched) == pytest.approx(sum(expected) / 4, rel=1e-5)


@pytest.mark.parametrize('box', [(3.0, 3, 3, 3), (5.0, 5, 4, 9), (5.0, 9, 4, 5), (0.0, 0, 1e-6, 1e-6)])
def test_boxes_of_the_teacher_without_area_do_not_count(box: tuple[float, ...]) -> None:
    empty = torch.tensor([box])
    for ours in (TEACHER[:1], empty):
        student = torch.cat([STUDENT, ours]).requires_grad_()
        loss = giou_distance(student, torch.cat([TEACHER, empty]))
        (gradient,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(loss.detach(), giou_distance(STUDENT, TEACHER))
        assert torch.equal(gradient[4], torch.zeros(4))


def test_a_student_box_without_area_stays_finite() -> None:
    student = torch.tensor([[10.0, 12, 10, 12]], requires_grad=True)
    loss = giou_distance(student, TEACHER[:1])
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss.detach()) == pytest.approx(1)
    assert gradient.isfinite().all()
    assert float(gradient.abs().max()) < 1


def test_no_boxes_are_zero_with_a_gradient_path() -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss_laws.zero_with_a_gradient_path(giou_distance(student, torch.zeros(0, 4)), student)
    student = STUDENT.clone().requires_grad_()
    loss_laws.zero_with_a_gradient_path(giou_distance(student, TEACHER, weight=torch.zeros(4)), student)


def test_what_are_no_boxes_is_named() -> None:
    with pytest.raises(
        TapError, match=r'Expected boxes \(\.\.\., 4\) but got \(2, 5\)\. Give four numbers for each box'
    ):
        giou_distance(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(TapError, match=r'one shape but got \(4, 4\) and \(2, 4\)'):
        giou_distance(STUDENT, TEACHER[:2])
    with pytest.raises(TapError, match=r'Expected weights of shape \(4,\) but got \(4, 1\)'):
        giou_distance(STUDENT, TEACHER, weight=torch.ones(4, 1))


def test_class_is_the_function() -> None:
    weight = torch.tensor([0.0, 0.5, 0.25, 1])
    value = BoxOverlapLoss()(STUDENT, TEACHER, labels=None, weight=weight)
    assert value == giou_distance(STUDENT, TEACHER, weight=weight)
    assert (BoxOverlapLoss.compares, BoxOverlapLoss.takes) == ('relations', ('weight',))
