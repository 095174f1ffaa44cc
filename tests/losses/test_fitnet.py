"""Laws of the L1 and L2 distances, against numpy in float64.

N image, C channel, H W position.
"""

from __future__ import annotations

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random

from kdplugin.losses import L1Loss, L2Loss, l1_distance, l2_distance

STUDENT, TEACHER = random(2, 5, 4, 6), random(2, 5, 4, 6, seed=1)
BOTH = pytest.mark.parametrize('distance', [l1_distance, l2_distance])


def test_values_by_hand() -> None:
    student, teacher = torch.tensor([[1.0, -2.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert l1_distance(student, teacher) == 6 / 4
    assert l2_distance(student, teacher) == 14 / 4


def test_values_of_numpy() -> None:
    difference = STUDENT.double().numpy() - TEACHER.double().numpy()
    assert float(l1_distance(STUDENT, TEACHER)) == pytest.approx(np.abs(difference).mean(), rel=1e-6)
    assert float(l2_distance(STUDENT, TEACHER)) == pytest.approx(np.square(difference).mean(), rel=1e-6)


@BOTH
@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss, distance: loss_laws.Loss) -> None:
    law(distance, STUDENT, TEACHER)


@BOTH
def test_zero_at_identity(distance: loss_laws.Loss) -> None:
    loss_laws.zero_at_identity(distance, STUDENT, value=0, slope=0)


@BOTH
def test_order_and_area_do_not_matter(distance: loss_laws.Loss) -> None:
    loss_laws.images_and_positions_have_no_order(distance, STUDENT, TEACHER)
    loss_laws.area_does_not_matter(distance, STUDENT, TEACHER)


@BOTH
def test_ignored_positions_do_not_count(distance: loss_laws.Loss) -> None:
    loss_laws.ignored_positions_do_not_count(distance, STUDENT, TEACHER)
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    padded = distance(STUDENT, TEACHER, labels=labels)
    torch.testing.assert_close(padded, distance(STUDENT[..., :4], TEACHER[..., :4]))


@BOTH
def test_the_same_shift_on_both_sides_does_not_matter(distance: loss_laws.Loss) -> None:
    torch.testing.assert_close(distance(STUDENT + 3, TEACHER + 3), distance(STUDENT, TEACHER), rtol=1e-5, atol=1e-6)


def test_homogeneous_of_degree_one_and_two() -> None:
    torch.testing.assert_close(l1_distance(4 * STUDENT, 4 * TEACHER), 4 * l1_distance(STUDENT, TEACHER))
    torch.testing.assert_close(l2_distance(4 * STUDENT, 4 * TEACHER), 16 * l2_distance(STUDENT, TEACHER))


def test_float16_differences_whose_squares_and_sums_overflow() -> None:
    """A sum of squares in float16 is infinite here from the first element on."""
    student = torch.full((2, 64, 32, 32), 400.0, dtype=torch.float16, requires_grad=True)
    teacher = torch.full((2, 64, 32, 32), -400.0, dtype=torch.float16)
    assert (student.detach() - teacher).square().sum().isinf()
    loss = l2_distance(student, teacher)
    loss.backward()
    assert float(loss.detach()) == 640_000
    assert student.grad.isfinite().all()
    assert float(l1_distance(student.detach(), teacher)) == 800


def test_classes_are_the_functions_with_their_settings() -> None:
    labels = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    for loss, distance in ((L1Loss(ignore_index=1), l1_distance), (L2Loss(ignore_index=1), l2_distance)):
        value = loss(STUDENT, TEACHER, labels=labels)
        assert value == distance(STUDENT, TEACHER, labels=labels, ignore_index=1)
        assert value != distance(STUDENT, TEACHER)
        assert loss.compares == 'features'
