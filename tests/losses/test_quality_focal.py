"""Laws of the quality focal loss towards a teacher's scores, against numpy in float64.

N image, C class, H W position.
"""

from __future__ import annotations

import re

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random
from scipy.special import expit
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import SoftQualityFocalLoss, quality_focal_divergence

STUDENT, TEACHER = random(2, 5, 3, 4, scale=2), random(2, 5, 3, 4, seed=1, scale=2)


def independent(student: Tensor, teacher: Tensor, beta: float) -> np.ndarray:
    """Write the formula out: sum over classes of |p - y|^beta * -(y ln p + (1 - y) ln(1 - p))."""
    p, y = (expit(side.double().numpy()) for side in (student, teacher))
    return (np.abs(p - y) ** beta * -(y * np.log(p) + (1 - y) * np.log1p(-p))).sum(1)


@pytest.mark.parametrize('beta', [1.0, 2.0])
def test_value_of_the_formula(beta: float) -> None:
    value = quality_focal_divergence(STUDENT, TEACHER, beta=beta)
    assert float(value) == pytest.approx(independent(STUDENT, TEACHER, beta).mean(), rel=1e-5)


def test_value_by_hand() -> None:
    """P = 1/2 and y = 3/4: (1/4)^2 * ln 2."""
    student, teacher = torch.zeros(1, 1), torch.tensor([[3.0]]).log()
    assert float(quality_focal_divergence(student, teacher, beta=2)) == pytest.approx(0.04332169878499658)


@pytest.mark.parametrize('beta', [1.0, 2.0])
@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss, beta: float) -> None:
    law(lambda *sides: quality_focal_divergence(*sides, beta=beta), STUDENT, TEACHER)


def test_zero_at_identity_unlike_the_cross_entropy() -> None:
    loss_laws.zero_at_identity(quality_focal_divergence, STUDENT, value=0, slope=0)


def test_order_and_area_do_not_matter() -> None:
    loss_laws.images_and_positions_have_no_order(quality_focal_divergence, STUDENT, TEACHER)
    loss_laws.area_does_not_matter(quality_focal_divergence, STUDENT, TEACHER)


def test_classes_are_judged_each_by_itself() -> None:
    """Sigmoid scores: a constant added to all classes matters, and the classes' terms add up."""
    per_class = [quality_focal_divergence(STUDENT[:, [c]], TEACHER[:, [c]]) for c in range(5)]
    torch.testing.assert_close(quality_focal_divergence(STUDENT, TEACHER), torch.stack(per_class).sum())
    assert float(quality_focal_divergence(TEACHER + 1, TEACHER)) > 0.1


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(quality_focal_divergence, STUDENT, TEACHER)


def test_weights_choose_the_region() -> None:
    weight = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    value = quality_focal_divergence(STUDENT, TEACHER, weight=weight)
    expected = np.average(independent(STUDENT, TEACHER, 1), weights=weight.double().numpy())
    assert float(value) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(TapError, match=r'Expected weights of shape \(2, 3, 4\) but got \(2, 5, 3, 4\)'):
        quality_focal_divergence(STUDENT, TEACHER, weight=torch.ones_like(STUDENT))


def test_nothing_is_zero_with_a_gradient_path() -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    loss_laws.zero_with_a_gradient_path(quality_focal_divergence(student, torch.zeros(0, 5)), student)


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    student = (scale * STUDENT).requires_grad_()
    loss = quality_focal_divergence(student, scale * TEACHER)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    given = dict(labels=labels, weight=torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)))
    loss = SoftQualityFocalLoss(beta=2.0, ignore_index=1)
    expected = quality_focal_divergence(STUDENT, TEACHER, beta=2.0, ignore_index=1, **given)
    assert loss(STUDENT, TEACHER, **given) == expected
    assert (loss.compares, loss.takes) == ('logits', ('labels', 'weight'))


@pytest.mark.parametrize('beta', [0, 0.5, float('nan')])
def test_beta_must_not_make_slopes_infinite(beta: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'Expected a finite beta >= 1 but got {beta}. Try 1 or 2')):
        SoftQualityFocalLoss(beta=beta)
