"""Laws and reference values of PKD's Pearson distance.

N image, C channel, H W position.
"""

from __future__ import annotations

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random

from kdplugin.errors import TapError
from kdplugin.losses import PKDLoss, pearson_distance

STUDENT, TEACHER = random(2, 5, 4, 6), random(2, 5, 4, 6, seed=1)


@pytest.mark.parametrize('case', loss_laws.golden('pkd'), ids=lambda case: case['name'])
def test_value_of_the_authors_code(case: dict) -> None:
    assert float(pearson_distance(case['student'].float(), case['teacher'].float())) == pytest.approx(
        case['value'], rel=1e-5
    )


def test_value_is_one_minus_r() -> None:
    """Pearson's r from numpy, over all images and positions of a channel: (n - 1) / n (1 - r), n = 2 * 4 * 6."""
    pairs = zip(STUDENT.transpose(0, 1).flatten(1), TEACHER.transpose(0, 1).flatten(1), strict=True)
    r = np.mean([np.corrcoef(ours.double(), theirs.double())[0, 1] for ours, theirs in pairs])
    assert float(pearson_distance(STUDENT, TEACHER)) == pytest.approx(47 / 48 * (1 - r), rel=1e-5)
    assert float(pearson_distance(TEACHER, -TEACHER)) == pytest.approx(47 / 48 * 2, rel=1e-5)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(pearson_distance, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(pearson_distance, STUDENT)


def test_order_of_images_and_positions_does_not_matter() -> None:
    loss_laws.images_and_positions_have_no_order(pearson_distance, STUDENT, TEACHER)


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(pearson_distance, STUDENT, TEACHER)


def test_ignored_positions_leave_the_statistics_alone() -> None:
    """The valid part alone must give the same value: here the last two columns are padding."""
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    padded = pearson_distance(STUDENT, TEACHER, labels=labels)
    torch.testing.assert_close(padded, pearson_distance(STUDENT[..., :4], TEACHER[..., :4]))


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
def test_invariant_to_scale_and_shift_per_channel(scale: float) -> None:
    factors, shifts = scale * (0.5 + random(5, seed=2).abs()), scale * random(5, seed=3)
    moved = STUDENT * factors[:, None, None] + shifts[:, None, None]
    expected = pearson_distance(STUDENT, TEACHER)
    torch.testing.assert_close(pearson_distance(moved, TEACHER), expected, rtol=1e-5, atol=1e-6)
    other = TEACHER * factors[:, None, None] - shifts[:, None, None]
    torch.testing.assert_close(pearson_distance(STUDENT, other), expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_of_the_batch_not_of_one_image() -> None:
    """One image shifted alone is another map; statistics per image would not see it."""
    moved = STUDENT + torch.tensor([0.0, 5.0])[:, None, None, None]
    assert float(pearson_distance(moved, STUDENT)) > 0.3


@pytest.mark.parametrize('constant', [0.0, 1e-3, 7.7, 1000.1])
def test_channels_that_do_not_vary_stay_finite(constant: float) -> None:
    """One dead channel of two: it adds (n - 1) / 2n where the other side varies, nothing where both are dead."""
    student, teacher = random(2, 2, 9, 11), random(2, 2, 9, 11, seed=1)
    alone = pearson_distance(student[:, 1:], teacher[:, 1:])
    student[:, 0] = constant
    student.requires_grad_()
    loss = pearson_distance(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    half = (198 - 1) / (2 * 198)
    assert float(loss.detach()) == pytest.approx((float(alone) + half) / 2, rel=1e-5)
    assert torch.equal(gradient[:, 0], torch.zeros(2, 9, 11))
    assert float(gradient[:, 1].abs().max()) > 0
    dead = pearson_distance(student, torch.cat([student[:, :1].detach() * 3 + 1, teacher[:, 1:]], 1))
    assert float(dead.detach()) == pytest.approx(float(alone) / 2, rel=1e-5)


def test_one_value_per_channel_is_zero_not_nan() -> None:
    student = random(1, 3, 1, 1).requires_grad_()
    loss_laws.zero_with_a_gradient_path(pearson_distance(student, random(1, 3, 1, 1, seed=1)), student)


@pytest.mark.parametrize('shape', [(1, 3, 4, 8), (1, 3, 8, 4)])
def test_maps_that_differ_in_one_side_only_are_an_error(shape: tuple[int, ...]) -> None:
    """A loss that compares heights alone would meet (4, 4) and (4, 8) unprepared."""
    with pytest.raises(TapError, match=r'one shape but got \(1, 3, 4, 4\) and \(1, 3, [48], [48]\)'):
        pearson_distance(torch.zeros(1, 3, 4, 4), torch.zeros(shape))


def test_float16_features_beyond_its_squares() -> None:
    """The variance of values around 300 is no float16 number."""
    student, teacher = random(2, 3, 8, 8, scale=300).half(), random(2, 3, 8, 8, seed=1, scale=300).half()
    assert student.square().isinf().any()
    torch.testing.assert_close(pearson_distance(student, teacher), pearson_distance(student / 64, teacher / 64))


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    value = PKDLoss(ignore_index=1)(STUDENT, TEACHER, labels=labels)
    assert value == pearson_distance(STUDENT, TEACHER, labels=labels, ignore_index=1)
    assert value != PKDLoss()(STUDENT, TEACHER, labels=labels)
    assert PKDLoss.compares == 'features'
