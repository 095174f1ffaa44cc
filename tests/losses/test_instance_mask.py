"""Laws of the divergence between instance masks, against scipy in float64.

M box, K class, H W position.
"""

from __future__ import annotations

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random
from scipy.special import expit, rel_entr
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import InstanceMaskLoss, mask_divergence

STUDENT, TEACHER = random(4, 3, 5, 6, scale=2), random(4, 3, 5, 6, seed=1, scale=2)
CLASSES = torch.tensor([2, 0, 0, 1])


def divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return mask_divergence(student, teacher, classes=CLASSES[: len(student)], temperature=2.0)


def independent(student: Tensor, teacher: Tensor, temperature: float) -> np.ndarray:
    """Return T^2 * the mean over pixels of p ln(p / q) + (1 - p) ln((1 - p) / (1 - q)) of each mask."""
    q, p = (expit(side.double().numpy() / temperature) for side in (student, teacher))
    return temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean((-2, -1))


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_value_of_the_formula(temperature: float) -> None:
    expected = independent(STUDENT, TEACHER, temperature)[range(4), CLASSES]
    value = mask_divergence(STUDENT, TEACHER, classes=CLASSES, temperature=temperature)
    assert float(value) == pytest.approx(expected.mean(), rel=1e-4)


def test_value_by_hand() -> None:
    """P = 3/4 and q = 1/2: 3/4 ln (3/2) + 1/4 ln (1/2)."""
    student, teacher = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0).log()
    assert float(mask_divergence(student, teacher)) == pytest.approx(0.13081203594113694)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(divergence, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(divergence, STUDENT)


def test_only_the_mask_of_the_class_counts() -> None:
    student = STUDENT.clone().requires_grad_()
    divergence(student, TEACHER).backward()
    touched = student.grad.abs().amax((2, 3)) > 0
    assert torch.equal(touched, torch.nn.functional.one_hot(CLASSES, 3).bool())


def test_masks_agnostic_to_classes() -> None:
    expected = independent(STUDENT[:, 0], TEACHER[:, 0], 1).mean()
    assert float(mask_divergence(STUDENT[:, :1], TEACHER[:, :1])) == pytest.approx(expected, rel=1e-4)
    assert float(mask_divergence(STUDENT[:, 0], TEACHER[:, 0])) == pytest.approx(expected, rel=1e-4)


def test_value_does_not_grow_with_boxes_or_pixels() -> None:
    many = [side.repeat(3, 1, 2, 2) for side in (STUDENT, TEACHER)]
    value = mask_divergence(*many, classes=CLASSES.repeat(3), temperature=2.0)
    torch.testing.assert_close(value, divergence(STUDENT, TEACHER))


def test_weights_and_boxes_without_a_class() -> None:
    expected = independent(STUDENT, TEACHER, 1)[range(4), CLASSES]
    classes = torch.tensor([2, 0, 3, -1])
    value = mask_divergence(STUDENT, TEACHER, classes=classes)
    assert float(value) == pytest.approx(expected[:2].mean(), rel=1e-4)
    value = mask_divergence(STUDENT, TEACHER, classes=classes, weight=torch.tensor([0.2, 0.6, 1, 1]))
    assert float(value) == pytest.approx((expected[0] + 3 * expected[1]) / 4, rel=1e-4)


@pytest.mark.parametrize('shape', [(0, 3, 5, 6), (0, 1, 5, 6), (0, 5, 6)])
def test_no_positive_box_is_zero_with_a_gradient_path(shape: tuple[int, ...]) -> None:
    student = torch.zeros(shape, requires_grad=True)
    nothing = mask_divergence(student, torch.zeros(shape), classes=torch.zeros(0, dtype=torch.long))
    loss_laws.zero_with_a_gradient_path(nothing, student)


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    student = (scale * STUDENT).requires_grad_()
    loss = divergence(student, scale * TEACHER)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(('classes', 'got'), [(None, 'none'), (torch.zeros(3), r'shape \(3,\)')])
def test_classes_are_needed_where_masks_have_some(classes: Tensor | None, got: str) -> None:
    message = rf'Expected classes \(4,\) for mask logits \(4, 3, 5, 6\) but got {got}\. Give the assigned class'
    with pytest.raises(ConfigError, match=message):
        mask_divergence(STUDENT, TEACHER, classes=classes)


def test_class_is_the_function_with_its_settings() -> None:
    given = dict(classes=CLASSES, weight=torch.tensor([0.2, 0.6, 1, 0]))
    loss = InstanceMaskLoss(temperature=3.0)
    assert loss(STUDENT, TEACHER, labels=None, **given) == mask_divergence(STUDENT, TEACHER, temperature=3.0, **given)
    assert (loss.compares, loss.takes, loss.temperature) == ('logits', ('classes', 'weight'), 3.0)
    with pytest.raises(ConfigError, match=r'Expected a finite temperature > 0 but got 0\. Try 1 to 4'):
        InstanceMaskLoss(temperature=0)
    with pytest.raises(TapError, match=r'Expected weights of shape \(4,\) but got \(1,\)'):
        loss(STUDENT, TEACHER, classes=CLASSES, weight=torch.ones(1))
