"""Laws and reference values of attention transfer.

N image, C channel, H W position.
"""

from __future__ import annotations

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random
from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses import AttentionTransferLoss, attention_transfer

STUDENT, TEACHER = random(2, 3, 4, 6), random(2, 5, 4, 6, seed=1)


def independent(student: Tensor, teacher: Tensor) -> float:
    """Write the formula out in numpy and float64."""
    maps = [np.square(side.double().numpy()).mean(1).reshape(len(side), -1) for side in (student, teacher)]
    ours, theirs = (flat / np.linalg.norm(flat, axis=1, keepdims=True) for flat in maps)
    return float(np.square(ours - theirs).mean())


@pytest.mark.parametrize('case', loss_laws.golden('attention_transfer'), ids=lambda case: case['name'])
def test_value_of_the_reference_code(case: dict) -> None:
    value = attention_transfer(case['student'].float(), case['teacher'].float())
    assert float(value) == pytest.approx(case['value'], rel=1e-5)


def test_value_of_the_formula_in_float64() -> None:
    assert float(attention_transfer(STUDENT, TEACHER)) == pytest.approx(independent(STUDENT, TEACHER), rel=1e-5)


def test_value_by_hand() -> None:
    """q = (3, 4) / 5 and (1, 0): (0.16 + 0.64) / 2."""
    student = torch.tensor([3.0, 4.0]).sqrt().reshape(1, 1, 1, 2)
    assert float(attention_transfer(student, torch.tensor([[[[7.0, 0.0]]]]))) == pytest.approx(0.4)


@pytest.mark.parametrize('law', loss_laws.LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(attention_transfer, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(attention_transfer, STUDENT, value=0, slope=0)


def test_order_of_images_and_positions_does_not_matter() -> None:
    loss_laws.images_and_positions_have_no_order(attention_transfer, STUDENT, TEACHER)


@pytest.mark.parametrize('scale', [1e-4, 1.0, 1e4])
def test_invariant_to_the_scale_of_an_image_and_the_sign_of_values(scale: float) -> None:
    factors = scale * torch.tensor([1.0, -3.0])[:, None, None, None]
    expected = attention_transfer(STUDENT, TEACHER)
    torch.testing.assert_close(attention_transfer(STUDENT * factors, TEACHER), expected)
    torch.testing.assert_close(attention_transfer(STUDENT, TEACHER * factors), expected)


def test_invariant_to_a_rotation_of_channels() -> None:
    rotation = torch.linalg.qr(random(5, 5, seed=2))[0]
    turned = torch.einsum('dc,nchw->ndhw', rotation, TEACHER)
    torch.testing.assert_close(attention_transfer(STUDENT, turned), attention_transfer(STUDENT, TEACHER))


def test_gradient_is_orthogonal_to_the_features() -> None:
    """The value does not change with the scale of an image."""
    student = STUDENT.clone().requires_grad_()
    attention_transfer(student, TEACHER).backward()
    assert float((STUDENT * student.grad).sum((1, 2, 3)).abs().max()) < 1e-8


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(attention_transfer, STUDENT, TEACHER)


def test_ignored_positions_are_no_part_of_the_length() -> None:
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    value = attention_transfer(STUDENT, TEACHER, labels=labels)
    assert float(value) == pytest.approx(independent(STUDENT[..., :4], TEACHER[..., :4]), rel=1e-5)


@pytest.mark.parametrize('size', [(4, 3), (2, 6), (8, 12)])
def test_maps_of_other_sizes_are_resized_even_where_one_side_agrees(size: tuple[int, int]) -> None:
    smooth = torch.nn.functional.interpolate(TEACHER, size=size, mode='nearest')
    value = attention_transfer(smooth, TEACHER)
    assert value.isfinite()
    resized = torch.nn.functional.interpolate(smooth.square().mean(1, keepdim=True), TEACHER.shape[2:], mode='bilinear')
    assert float(value) == pytest.approx(independent(resized.sqrt(), TEACHER), rel=1e-4)


def test_dead_maps_are_finite_and_get_no_gradient() -> None:
    """A map of zeros has no direction: q is 0, and the other side's squares remain."""
    student = STUDENT.clone()
    student[0] = 0
    student.requires_grad_()
    loss = attention_transfer(student, TEACHER)
    (gradient,) = torch.autograd.grad(loss, student)
    alone = float(attention_transfer(STUDENT[1:], TEACHER[1:]))
    assert float(loss.detach()) == pytest.approx((1 / 24 + alone) / 2, rel=1e-5)
    assert torch.equal(gradient[0], torch.zeros(3, 4, 6))
    assert attention_transfer(torch.zeros_like(STUDENT), torch.zeros_like(TEACHER)) == 0


def test_float16_features_whose_squares_overflow() -> None:
    student = (300 * STUDENT).half().requires_grad_()
    assert student.detach().square().isinf().any()
    loss = attention_transfer(student, TEACHER.half())
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(attention_transfer(STUDENT, TEACHER)), rel=0.01)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('shape', [(1, 3, 4, 6), (2, 3, 24)])
def test_other_tensors_are_named(shape: tuple[int, ...]) -> None:
    message = (
        r'Expected maps \(N, C, H, W\) of the same images but got \(2, 3, 4, 6\) and .*Tap layers that put out maps'
    )
    with pytest.raises(TapError, match=message):
        attention_transfer(STUDENT, torch.zeros(shape))


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    value = AttentionTransferLoss(ignore_index=1)(STUDENT, TEACHER, labels=labels)
    assert value == attention_transfer(STUDENT, TEACHER, labels=labels, ignore_index=1)
    assert AttentionTransferLoss.compares == 'relations'
