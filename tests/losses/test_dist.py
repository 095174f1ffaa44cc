"""Laws and reference values of DIST.

N image, C class, H W position.
"""

from __future__ import annotations

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses import DISTLoss, dist_relations

STUDENT, TEACHER = random(2, 5, 4, 6, scale=2), random(2, 5, 4, 6, seed=1, scale=2)


def inter(student: Tensor, teacher: Tensor, **settings: object) -> Tensor:
    return dist_relations(student, teacher, intra_weight=0, **settings)


def intra(student: Tensor, teacher: Tensor, **settings: object) -> Tensor:
    return dist_relations(student, teacher, inter_weight=0, **settings)


@pytest.mark.parametrize('case', loss_laws.golden('dist'), ids=lambda case: case['name'])
def test_value_of_the_authors_code(case: dict) -> None:
    value = dist_relations(case['student'].float(), case['teacher'].float(), **case['settings'])
    assert float(value) == pytest.approx(case['value'], rel=2e-5)


def test_values_of_numpy() -> None:
    """np.corrcoef between rows: a row is a position for inter, a class for intra."""
    ours, theirs = (side.double().softmax(1).movedim(1, 3).reshape(-1, 5).numpy() for side in (STUDENT, TEACHER))
    per_position = [1 - np.corrcoef(*pair)[0, 1] for pair in zip(ours, theirs, strict=True)]
    per_class = [1 - np.corrcoef(*pair)[0, 1] for pair in zip(ours.T, theirs.T, strict=True)]
    assert float(inter(STUDENT, TEACHER)) == pytest.approx(np.mean(per_position), rel=1e-5)
    assert float(intra(STUDENT, TEACHER)) == pytest.approx(np.mean(per_class), rel=1e-5)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(lambda *sides: dist_relations(*sides, intra_weight=2, temperature=2.0), STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(dist_relations, STUDENT)


def test_order_and_area_do_not_matter() -> None:
    loss_laws.images_and_positions_have_no_order(dist_relations, STUDENT, TEACHER)
    loss_laws.area_does_not_matter(dist_relations, STUDENT, TEACHER)


def test_maps_are_rows_of_positions() -> None:
    """Correlating over the images at each position instead would be +-1 for two images."""
    rows = [side.movedim(1, 3).reshape(-1, 5) for side in (STUDENT, TEACHER)]
    torch.testing.assert_close(dist_relations(STUDENT, TEACHER), dist_relations(*rows))


def test_invariant_to_scaled_and_shifted_probabilities() -> None:
    """P -> a p + b with probabilities that still sum to 1: per position for inter, per class for intra."""
    student, teacher = STUDENT.softmax(1), TEACHER.softmax(1)
    factors = 0.2 + 0.6 * torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(2))
    flatter = factors * student + (1 - factors) / 5
    torch.testing.assert_close(inter(flatter.log(), teacher.log()), inter(student.log(), teacher.log()))
    factor, shares = 0.3, torch.tensor([0.1, 0.3, 0.2, 0.15, 0.25])[:, None, None]
    moved = factor * student + (1 - factor) * shares
    torch.testing.assert_close(intra(moved.log(), teacher.log()), intra(student.log(), teacher.log()))
    assert float(inter(flatter.log(), student.log())) < 1e-5


def test_invariant_to_a_constant_per_position() -> None:
    moved = dist_relations(STUDENT + random(2, 1, 4, 6, seed=2), TEACHER + random(2, 1, 4, 6, seed=3))
    torch.testing.assert_close(moved, dist_relations(STUDENT, TEACHER))


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(dist_relations, STUDENT, TEACHER)
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    padded = dist_relations(STUDENT, TEACHER, labels=labels)
    torch.testing.assert_close(padded, dist_relations(STUDENT[..., :4], TEACHER[..., :4]))


def test_positions_where_the_teacher_does_not_prefer_a_class_do_not_count() -> None:
    teacher = TEACHER.clone()
    teacher[..., 3:] = 0.7
    student = STUDENT.clone().requires_grad_()
    loss = inter(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss.detach(), inter(STUDENT[..., :3], TEACHER[..., :3]))
    assert torch.equal(gradient[..., 3:], torch.zeros(2, 5, 4, 3))


def test_a_student_without_preference_counts_one_and_stays_finite() -> None:
    """Its standard deviation is 0: r is 0, neither NaN nor a gradient of 1e8."""
    student = torch.zeros_like(STUDENT).requires_grad_()
    loss = inter(student, TEACHER)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss.detach()) == pytest.approx(1)
    assert torch.equal(gradient, torch.zeros_like(STUDENT))


def test_nothing_to_relate_is_zero() -> None:
    for shape in ((2, 1, 3, 3), (1, 1), (2, 4, 3, 3)):
        student = random(*shape).requires_grad_()
        loss_laws.zero_with_a_gradient_path(dist_relations(student, torch.ones(shape)), student)


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    student = (scale * STUDENT).requires_grad_()
    loss = dist_relations(student, scale * TEACHER)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    settings = dict(inter_weight=2.0, intra_weight=0.5, temperature=3.0, ignore_index=1)
    loss = DISTLoss(**settings)
    assert loss(STUDENT, TEACHER, labels=labels) == dist_relations(STUDENT, TEACHER, labels=labels, **settings)
    assert (loss.compares, loss.temperature) == ('logits', 3.0)


def test_temperature_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r'Expected a finite temperature > 0 but got -2\. Try 1 to 4'):
        DISTLoss(temperature=-2)
