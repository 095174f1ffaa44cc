"""Laws and reference values of relational distillation.

N image, C channel, H W position.
"""

from __future__ import annotations

import loss_laws
import pytest
import torch
from loss_laws import random
from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses import RKDLoss, relational_distance

STUDENT, TEACHER = random(5, 4, 3, 2), random(5, 6, 3, 2, seed=1)
POINTS = random(6, 4), random(6, 4, seed=1)


def distances(student: Tensor, teacher: Tensor, **settings: object) -> Tensor:
    return relational_distance(student, teacher, angle_weight=0, **settings)


def angles(student: Tensor, teacher: Tensor, **settings: object) -> Tensor:
    return relational_distance(student, teacher, distance_weight=0, angle_weight=1, **settings)


@pytest.mark.parametrize('case', loss_laws.golden('rkd'), ids=lambda case: case['name'])
def test_value_of_the_reference_code(case: dict) -> None:
    """Its means hold N (N - 1) true pairs of N^2, N (N - 1) (N - 2) true triples of N^3."""
    sides = (case['student'].float(), case['teacher'].float())
    n = len(sides[0])
    assert float(distances(*sides)) * (n - 1) / n == pytest.approx(case['distance'], rel=1e-4)
    assert float(angles(*sides)) * (n - 1) * (n - 2) / n**2 == pytest.approx(case['angle'], rel=1e-4)


def test_value_by_hand() -> None:
    """Triangles 3-4-5 and equilateral: 3/4, 1, 5/4 against 1, and the cosines 0, 3/5, 4/5 against 1/2."""
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    teacher = torch.tensor([[0.0, 0.0, 7.0], [2.0, 0.0, 7.0], [1.0, 3**0.5, 7.0]])
    assert float(distances(student, teacher)) == pytest.approx((1 / 16 + 0 + 1 / 16) / 2 / 3, rel=1e-5)
    assert float(angles(student, teacher)) == pytest.approx((0.25 + 0.01 + 0.09) / 2 / 3, rel=1e-5)
    both = relational_distance(student, teacher, distance_weight=3, angle_weight=5)
    assert float(both) == pytest.approx(3 * 0.125 / 6 + 5 * 0.35 / 6, rel=1e-5)


@pytest.mark.parametrize('law', loss_laws.LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(relational_distance, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(relational_distance, STUDENT)


@pytest.mark.parametrize('part', [distances, angles])
@pytest.mark.parametrize('scale', [1e-2, 1.0, 1e2])
def test_invariant_to_rotation_translation_and_scale(part: loss_laws.Loss, scale: float) -> None:
    rotation = torch.linalg.qr(random(4, 4, seed=2))[0]
    moved = [scale * side @ rotation + 3 * scale * random(4, seed=3) for side in POINTS]
    torch.testing.assert_close(part(moved[0], POINTS[1]), part(*POINTS), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(part(POINTS[0], moved[1]), part(*POINTS), rtol=1e-4, atol=1e-6)


def test_mirrored_points_are_alike_and_stretched_ones_are_not() -> None:
    mirrored = POINTS[0] * torch.tensor([-1.0, 1, 1, 1])
    assert float(relational_distance(mirrored, POINTS[0])) < 1e-9
    assert float(relational_distance(POINTS[0] * torch.tensor([3.0, 1, 1, 1]), POINTS[0])) > 1e-2


def test_order_of_images_does_not_matter() -> None:
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    turned = relational_distance(POINTS[0][order], POINTS[1][order])
    torch.testing.assert_close(turned, relational_distance(*POINTS))
    assert float(relational_distance(POINTS[0][order], POINTS[0])) > 0.05


def test_a_map_is_its_mean() -> None:
    pooled = relational_distance(STUDENT.mean((2, 3)), TEACHER.mean((2, 3)))
    torch.testing.assert_close(relational_distance(STUDENT, TEACHER), pooled)
    other_size = TEACHER.repeat_interleave(2, 2).repeat_interleave(3, 3)
    torch.testing.assert_close(relational_distance(STUDENT, other_size), pooled)


def test_ignored_positions_do_not_count() -> None:
    student, teacher = random(5, 4, 4, 6), random(5, 6, 4, 6, seed=1)
    loss_laws.ignored_positions_do_not_count(relational_distance, student, teacher)
    labels = torch.zeros(5, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    padded = relational_distance(student, teacher, labels=labels)
    torch.testing.assert_close(padded, relational_distance(student[..., :4], teacher[..., :4]))


def test_images_without_a_valid_position_are_no_points() -> None:
    labels = torch.zeros(5, 3, 2, dtype=torch.long)
    labels[2] = 255
    kept = [0, 1, 3, 4]
    without = relational_distance(STUDENT, TEACHER, labels=labels)
    torch.testing.assert_close(without, relational_distance(STUDENT[kept], TEACHER[kept]))


@pytest.mark.parametrize('images', [1, 2])
def test_too_few_images_are_zero_with_a_gradient_path(images: int) -> None:
    student = STUDENT[:images].clone().requires_grad_()
    loss_laws.zero_with_a_gradient_path(relational_distance(student, TEACHER[:images]), student)


@pytest.mark.parametrize('offset', [0.0, 100.0])
def test_points_that_coincide_stay_finite(offset: float) -> None:
    """The root of a distance of 0 has an infinite slope, and its mean over none is NaN."""
    student = (POINTS[0] + offset).clone()
    student[1] = student[0]
    for ours, theirs in ((student, POINTS[1]), (torch.full((6, 4), 3.0), POINTS[1]), (POINTS[0], student)):
        ours = ours.clone().requires_grad_()
        loss = relational_distance(ours, theirs)
        (gradient,) = torch.autograd.grad(loss, ours)
        assert loss.isfinite()
        assert float(gradient.abs().max()) < 10
    student = POINTS[0].clone().requires_grad_()
    none = angles(student, torch.full((6, 4), 3.0))
    loss_laws.zero_with_a_gradient_path(none, student)


def test_far_from_the_origin() -> None:
    """The products of points that are not centred would round the distances away."""
    value = relational_distance(POINTS[0] + 1000, POINTS[1] - 1000)
    torch.testing.assert_close(value, relational_distance(*POINTS), rtol=1e-2, atol=1e-4)


def test_other_batches_are_named() -> None:
    message = r'Expected features \(N, C, \.\.\.\) of the same images but got \(6, 4\) and \(5, 4\)\. Tap layers that'
    with pytest.raises(TapError, match=message):
        relational_distance(POINTS[0], POINTS[1][:5])


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (5, 3, 2), generator=torch.Generator().manual_seed(0))
    settings = dict(distance_weight=3.0, angle_weight=0.5, ignore_index=1)
    expected = relational_distance(STUDENT, TEACHER, labels=labels, **settings)
    assert RKDLoss(**settings)(STUDENT, TEACHER, labels=labels) == expected
    assert RKDLoss.compares == 'relations'
