"""Laws and reference values of decoupled distillation.

N image, C class, H W position.
"""

from __future__ import annotations

import math

import loss_laws
import pytest
import torch
from loss_laws import random
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import DKDLoss, decoupled_divergence, kl_divergence

STUDENT, TEACHER = random(2, 5, 4, 6, scale=2), random(2, 5, 4, 6, seed=1, scale=2)
LABELS = torch.randint(0, 5, (2, 4, 6), generator=torch.Generator().manual_seed(0))


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return decoupled_divergence(student, teacher, labels=LABELS[: len(student)])


@pytest.mark.parametrize('case', loss_laws.golden('dkd'), ids=lambda case: case['name'])
def test_value_of_the_authors_code(case: dict) -> None:
    labels = torch.tensor(case['labels'])
    value = decoupled_divergence(case['student'].float(), case['teacher'].float(), labels=labels, **case['settings'])
    assert float(value) == pytest.approx(case['value'], rel=2e-5, abs=1e-7)


def test_value_by_hand() -> None:
    """P = (1/2, 1/4, 1/4) and q = (1/2, 1/8, 3/8), label 0: no TCKD; NCKD = 1/2 ln 2 + 1/2 ln (2/3)."""
    student, teacher = torch.tensor([[0.5, 0.125, 0.375]]).log(), torch.tensor([[0.5, 0.25, 0.25]]).log()
    parts = dict(labels=torch.tensor([0]), temperature=1.0)
    assert float(decoupled_divergence(student, teacher, alpha=1, beta=0, **parts)) == pytest.approx(0, abs=1e-7)
    value = decoupled_divergence(student, teacher, alpha=0, beta=1, **parts)
    assert float(value) == pytest.approx(0.14384103622589045)
    parts['labels'] = torch.tensor([2])
    value = decoupled_divergence(student, teacher, alpha=1, beta=0, **parts)
    assert float(value) == pytest.approx(math.log(2 / 3) / 4 + math.log(6 / 5) * 3 / 4)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_parts_add_up_to_the_kl_divergence(temperature: float) -> None:
    """KL = TCKD + (1 - p_y) NCKD at each position, p_y the teacher's."""
    total = 0.0
    for image in range(2):
        for row in range(4):
            one = [side[image : image + 1, :, row, 0] for side in (STUDENT, TEACHER)]
            label = LABELS[image : image + 1, row, 0]
            rest = 1 - float((one[1] / temperature).softmax(1)[0, label])
            total += float(decoupled_divergence(*one, labels=label, beta=rest, temperature=temperature))
    expected = kl_divergence(STUDENT[..., :1], TEACHER[..., :1], temperature=temperature)
    assert total / 8 == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(divergence, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(divergence, STUDENT, slope=1e-6)


def test_invariant_to_a_constant_per_position() -> None:
    moved = divergence(STUDENT + random(2, 1, 4, 6, seed=2), TEACHER + random(2, 1, 4, 6, seed=3))
    torch.testing.assert_close(moved, divergence(STUDENT, TEACHER))


def test_invariant_to_the_order_of_classes() -> None:
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    turned = decoupled_divergence(STUDENT[:, order], TEACHER[:, order], labels=order.argsort()[LABELS])
    torch.testing.assert_close(turned, divergence(STUDENT, TEACHER))


def test_maps_are_averaged_over_positions() -> None:
    rows = [side.movedim(1, 3).reshape(-1, 5) for side in (STUDENT, TEACHER)]
    torch.testing.assert_close(divergence(STUDENT, TEACHER), decoupled_divergence(*rows, labels=LABELS.flatten()))


@pytest.mark.parametrize('label', [255, -1, 5, 200])
def test_positions_without_a_class_do_not_count(label: int) -> None:
    """255 is ignored; the others are no class of these logits, as mmdet's background."""
    labels = LABELS.clone()
    labels[..., 4:] = label
    student = torch.where((labels == label)[:, None], 1e4, STUDENT).requires_grad_()
    loss = decoupled_divergence(student, TEACHER, labels=labels)
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.equal(gradient[..., 4:], torch.zeros(2, 5, 4, 2))
    expected = decoupled_divergence(STUDENT[..., :4], TEACHER[..., :4], labels=LABELS[..., :4])
    torch.testing.assert_close(loss.detach(), expected)
    student = STUDENT.clone().requires_grad_()
    nothing = decoupled_divergence(student, TEACHER, labels=torch.full_like(LABELS, label))
    loss_laws.zero_with_a_gradient_path(nothing, student)


def test_an_ignored_class() -> None:
    kept = LABELS != 3
    rows = [side.movedim(1, 3)[kept] for side in (STUDENT, TEACHER)]
    value = decoupled_divergence(STUDENT, TEACHER, labels=LABELS, ignore_index=3)
    torch.testing.assert_close(value, decoupled_divergence(*rows, labels=LABELS[kept], ignore_index=None))


def test_labels_of_another_size() -> None:
    finer = LABELS.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(decoupled_divergence(STUDENT, TEACHER, labels=finer), divergence(STUDENT, TEACHER))


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    """Where p_y rounds to 1, ln(1 - p_y) must not."""
    student = (scale * STUDENT).requires_grad_()
    loss = decoupled_divergence(student, scale * TEACHER, labels=LABELS, temperature=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    sides = (torch.tensor([[0.0, 40.0, 0.0]]), torch.tensor([[40.0, 0.0, 0.0]]))
    sure = decoupled_divergence(*sides, labels=torch.tensor([0]), beta=0, temperature=1.0)
    assert float(sure) == pytest.approx(40, rel=1e-5)


def test_one_class_is_zero() -> None:
    student = random(3, 1).requires_grad_()
    value = decoupled_divergence(student, random(3, 1, seed=1), labels=torch.zeros(3, dtype=torch.long))
    loss_laws.zero_with_a_gradient_path(value, student)


@pytest.mark.parametrize(('labels', 'got'), [(None, 'none'), (torch.zeros(2), r'labels of shape \(2,\)')])
def test_labels_are_needed_at_every_position(labels: Tensor | None, got: str) -> None:
    message = rf'Expected a class label at every position of logits \(2, 5, 4, 6\) but got {got}\. Use DKDLoss on'
    with pytest.raises(ConfigError, match=message):
        decoupled_divergence(STUDENT, TEACHER, labels=labels)


def test_class_is_the_function_with_its_settings() -> None:
    settings = dict(alpha=2.0, beta=0.5, temperature=3.0, ignore_index=1)
    loss = DKDLoss(**settings)
    expected = decoupled_divergence(STUDENT, TEACHER, labels=LABELS, **settings)
    assert loss(STUDENT, TEACHER, labels=LABELS) == expected
    assert (loss.compares, loss.needs, loss.temperature) == ('logits', ('labels',), 3.0)
    with pytest.raises(ConfigError, match=r'Expected a finite temperature > 0 but got 0\. Try 1 to 4'):
        DKDLoss(temperature=0)
    with pytest.raises(TapError, match='one shape'):
        loss(STUDENT, TEACHER[:, :4], labels=LABELS)
