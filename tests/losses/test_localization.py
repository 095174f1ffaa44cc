"""Laws and reference values of localization distillation.

N image, M box, H W position, B bin.
"""

from __future__ import annotations

import loss_laws
import pytest
import torch
from loss_laws import random
from scipy.special import rel_entr, softmax

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import LocalizationDistillationLoss, localization_divergence

STUDENT, TEACHER = random(2, 20, 3, 4, scale=2), random(2, 20, 3, 4, seed=1, scale=2)


@pytest.mark.parametrize('case', loss_laws.golden('localization'), ids=lambda case: case['name'])
def test_value_of_the_authors_code(case: dict) -> None:
    """Theirs is a mean over bins, ours the sum that the formula asks for."""
    student, teacher = (case[side].float().reshape(-1, 4 * case[side].shape[1]) for side in ('student', 'teacher'))
    per_box = case['student'].shape[1] * case['values'].reshape(-1, 4).mean(1)
    value = localization_divergence(student, teacher, temperature=case['temperature'])
    assert float(value) == pytest.approx(float(per_box.mean()), rel=5e-5)
    weight = torch.arange(len(student)).float()
    if len(student) > 1:
        value = localization_divergence(student, teacher, temperature=case['temperature'], weight=weight)
        assert float(value) == pytest.approx(float((weight * per_box).sum() / weight.sum()), rel=5e-5)


def test_value_of_the_formula_on_maps() -> None:
    """Channels are side after side: (N, 4 * 5, H, W)."""
    ours, theirs = (softmax(s.double().numpy().reshape(2, 4, 5, 3, 4) / 10, axis=2) for s in (STUDENT, TEACHER))
    expected = 100 * rel_entr(theirs, ours).sum(2).mean()
    assert float(localization_divergence(STUDENT, TEACHER)) == pytest.approx(expected, rel=1e-4)


def test_a_map_is_its_boxes() -> None:
    rows = [side.movedim(1, 3).reshape(-1, 20) for side in (STUDENT, TEACHER)]
    torch.testing.assert_close(localization_divergence(STUDENT, TEACHER), localization_divergence(*rows))


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(localization_divergence, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(localization_divergence, STUDENT)


def test_order_and_area_do_not_matter() -> None:
    loss_laws.images_and_positions_have_no_order(localization_divergence, STUDENT, TEACHER)
    loss_laws.area_does_not_matter(localization_divergence, STUDENT, TEACHER)


def test_invariant_to_a_constant_per_side_but_not_across_sides() -> None:
    shift = random(2, 4, 1, 3, 4, seed=2).expand(2, 4, 5, 3, 4).reshape(STUDENT.shape)
    expected = localization_divergence(STUDENT, TEACHER)
    torch.testing.assert_close(localization_divergence(STUDENT + shift, TEACHER - shift), expected)
    across = random(20, seed=3)[:, None, None]
    assert float(localization_divergence(STUDENT + across, TEACHER)) != pytest.approx(float(expected), rel=1e-3)


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(localization_divergence, STUDENT, TEACHER)


def test_weights_choose_the_region() -> None:
    weight = torch.zeros(2, 3, 4)
    weight[0, 1, 2], weight[1, 0, 0] = 3, 1
    chosen = [
        localization_divergence(*(s[i : i + 1, :, y, x] for s in (STUDENT, TEACHER)))
        for i, y, x in ((0, 1, 2), (1, 0, 0))
    ]
    value = localization_divergence(STUDENT, TEACHER, weight=weight)
    torch.testing.assert_close(value, (3 * chosen[0] + chosen[1]) / 4)
    torch.testing.assert_close(localization_divergence(STUDENT, TEACHER, weight=0.01 * weight), value)
    labels = torch.zeros(2, 3, 4, dtype=torch.long)
    labels[0] = 255
    padded = localization_divergence(STUDENT, TEACHER, weight=weight, labels=labels)
    torch.testing.assert_close(padded, chosen[1])


def test_no_positive_at_all_is_zero_with_a_gradient_path() -> None:
    student = STUDENT.clone().requires_grad_()
    nothing = localization_divergence(student, TEACHER, weight=torch.zeros(2, 3, 4))
    loss_laws.zero_with_a_gradient_path(nothing, student)
    student = torch.zeros(0, 20, requires_grad=True)
    loss_laws.zero_with_a_gradient_path(localization_divergence(student, torch.zeros(0, 20)), student)


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    student = (scale * STUDENT).requires_grad_()
    loss = localization_divergence(student, scale * TEACHER, temperature=1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_what_is_no_box_distribution_is_named() -> None:
    message = r'Expected distributions of 4 sides, channels that 4 divides, but got \(2, 18, 3, 4\)\. Tap what puts out'
    with pytest.raises(TapError, match=message):
        localization_divergence(STUDENT[:, :18], TEACHER[:, :18])
    with pytest.raises(TapError, match=r'Expected weights of shape \(2, 3, 4\) but got \(2, 12\)\. Give one weight'):
        localization_divergence(STUDENT, TEACHER, weight=torch.ones(2, 12))


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    given = dict(labels=labels, weight=torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(1)))
    loss = LocalizationDistillationLoss(temperature=3.0, ignore_index=1)
    expected = localization_divergence(STUDENT, TEACHER, temperature=3.0, ignore_index=1, **given)
    assert loss(STUDENT, TEACHER, **given) == expected
    assert (loss.compares, loss.takes, loss.temperature) == ('logits', ('labels', 'weight'), 3.0)
    assert LocalizationDistillationLoss().temperature == 10
    with pytest.raises(ConfigError, match=r'Expected a finite temperature > 0 but got nan\. Try 10'):
        LocalizationDistillationLoss(temperature=float('nan'))
