"""Laws and reference values of the channel-wise divergence.

N image, C channel, H W position.
"""

from __future__ import annotations

import re

import loss_laws
import pytest
import torch
from loss_laws import random
from scipy.special import rel_entr, softmax
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses import CWDLoss, channel_wise_divergence

STUDENT, TEACHER = random(2, 5, 4, 6, scale=2), random(2, 5, 4, 6, seed=1, scale=2)


def softened(student: Tensor, teacher: Tensor, **settings: object) -> Tensor:
    return channel_wise_divergence(student, teacher, temperature=3.0, **settings)


@pytest.mark.parametrize('case', loss_laws.golden('cwd'), ids=lambda case: f'{case["name"]}-T{case["temperature"]:g}')
def test_value_of_the_reference_code(case: dict) -> None:
    value = channel_wise_divergence(case['student'].float(), case['teacher'].float(), temperature=case['temperature'])
    assert float(value) == pytest.approx(case['value'], rel=2e-5)


def test_value_of_the_formula_in_float64() -> None:
    sides = (softmax(side.double().flatten(2).numpy() / 3, axis=2) for side in (TEACHER, STUDENT))
    assert float(softened(STUDENT, TEACHER)) == pytest.approx(9 * rel_entr(*sides).sum(2).mean(), rel=1e-5)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(softened, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(softened, STUDENT)


def test_order_of_images_and_positions_does_not_matter() -> None:
    loss_laws.images_and_positions_have_no_order(softened, STUDENT, TEACHER)


def test_invariant_to_a_constant_per_channel_of_an_image() -> None:
    moved = softened(STUDENT + random(2, 5, 1, 1, seed=2), TEACHER + random(2, 5, 1, 1, seed=3))
    torch.testing.assert_close(moved, softened(STUDENT, TEACHER), rtol=1e-5, atol=1e-6)


def test_value_does_not_grow_with_the_area() -> None:
    """Tiling repeats every position, so both softmaxes fall alike."""
    loss_laws.area_does_not_matter(softened, STUDENT, TEACHER)


def test_value_does_not_grow_with_channels_or_images() -> None:
    expected = softened(STUDENT, TEACHER)
    torch.testing.assert_close(softened(STUDENT.repeat(1, 3, 1, 1), TEACHER.repeat(1, 3, 1, 1)), expected)
    torch.testing.assert_close(softened(STUDENT.repeat(3, 1, 1, 1), TEACHER.repeat(3, 1, 1, 1)), expected)


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(softened, STUDENT, TEACHER)


def test_ignored_positions_are_no_part_of_the_softmax() -> None:
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    torch.testing.assert_close(softened(STUDENT, TEACHER, labels=labels), softened(STUDENT[..., :4], TEACHER[..., :4]))


def test_images_without_a_valid_position_are_no_part_of_the_mean() -> None:
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[1] = 255
    torch.testing.assert_close(softened(STUDENT, TEACHER, labels=labels), softened(STUDENT[:1], TEACHER[:1]))


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_features_and_constant_channels_stay_finite(scale: float) -> None:
    student, teacher = scale * STUDENT, scale * TEACHER
    student[:, 0], teacher[:, :2] = 0, scale
    student.requires_grad_()
    loss = channel_wise_divergence(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_one_position_is_zero() -> None:
    student = random(2, 3, 1, 1).requires_grad_()
    loss_laws.zero_with_a_gradient_path(channel_wise_divergence(student, random(2, 3, 1, 1, seed=1)), student)


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    loss = CWDLoss(temperature=3.0, ignore_index=1)
    assert loss(STUDENT, TEACHER, labels=labels) == softened(STUDENT, TEACHER, labels=labels, ignore_index=1)
    assert (loss.compares, loss.temperature) == ('features', 3.0)


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan')])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'Expected a finite temperature > 0 but got {temperature}. Try 1')):
        CWDLoss(temperature=temperature)
