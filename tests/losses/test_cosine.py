"""Laws of the cosine distance.

N image, C channel, H W position.
"""

from __future__ import annotations

import math

import loss_laws
import pytest
import torch
from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses import CosineLoss, cosine_distance


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def independent(student: Tensor, teacher: Tensor) -> Tensor:
    """Write the formula out in float64: mean over N H W of 1 - sum_c s t / (|s| |t|)."""
    ours, theirs = student.double(), teacher.double()
    norms = ours.square().sum(1).sqrt() * theirs.square().sum(1).sqrt()
    return (1 - (ours * theirs).sum(1) / norms).mean()


@pytest.mark.parametrize('degrees', [0, 30, 60, 90, 120, 180])
def test_value_by_hand(degrees: int) -> None:
    angle = math.radians(degrees)
    student = torch.tensor([2.0, 0.0]).reshape(1, 2, 1, 1)
    teacher = 7 * torch.tensor([math.cos(angle), math.sin(angle)]).reshape(1, 2, 1, 1)
    assert float(cosine_distance(student, teacher)) == pytest.approx(1 - math.cos(angle), abs=1e-6)


def test_value_and_gradient_equal_the_formula() -> None:
    student, teacher = features(2, 6, 3, 5).requires_grad_(), features(2, 6, 3, 5, seed=1)
    ours, theirs = cosine_distance(student, teacher), independent(student, teacher)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    torch.testing.assert_close(*(torch.autograd.grad(loss, student)[0] for loss in (ours, theirs)))


def test_zero_at_identity_two_at_the_opposite() -> None:
    student = features(2, 6, 4, 3).requires_grad_()
    same = cosine_distance(student, student.detach().clone())
    same.backward()
    assert float(same.detach()) == pytest.approx(0, abs=1e-6)
    assert float(student.grad.abs().max()) < 1e-6
    assert float(cosine_distance(student.detach(), -student)) == pytest.approx(2)


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e3])
def test_invariant_to_positive_scale_per_position(scale: float) -> None:
    student, teacher = features(2, 6, 3, 4), features(2, 6, 3, 4, seed=1)
    factors = scale * (0.1 + features(2, 1, 3, 4, seed=2).abs())
    expected = cosine_distance(student, teacher)
    torch.testing.assert_close(cosine_distance(student * factors, teacher), expected)
    torch.testing.assert_close(cosine_distance(student, teacher * factors), expected)


def test_gradient_is_orthogonal_to_the_features() -> None:
    student = features(2, 6, 3, 4).requires_grad_()
    cosine_distance(student, features(2, 6, 3, 4, seed=1)).backward()
    assert float((student.detach() * student.grad).sum(1).abs().max()) < 1e-7
    assert float(student.grad.abs().max()) > 1e-4


def test_invariant_to_a_rotation_of_channels() -> None:
    student, teacher = features(2, 6, 3, 4), features(2, 6, 3, 4, seed=1)
    rotation = torch.linalg.qr(features(6, 6, seed=2))[0]
    turned = (torch.einsum('dc,nchw->ndhw', rotation, side) for side in (student, teacher))
    torch.testing.assert_close(cosine_distance(*turned), cosine_distance(student, teacher))


def test_value_does_not_grow_with_the_area() -> None:
    student, teacher = features(2, 5, 3, 4), features(2, 5, 3, 4, seed=1)
    tiled = cosine_distance(student.repeat(1, 1, 4, 2), teacher.repeat(1, 1, 4, 2))
    torch.testing.assert_close(tiled, cosine_distance(student, teacher))


def test_zero_vectors_count_one_and_get_no_gradient() -> None:
    """torch.nn.functional.cosine_similarity would give a dead position a gradient of 1e8."""
    student = torch.zeros(1, 4, 2, 2, requires_grad=True)
    for teacher in (features(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)):
        loss = cosine_distance(student, teacher)
        (gradient,) = torch.autograd.grad(loss, student)
        assert float(loss.detach()) == 1
        assert torch.equal(gradient, torch.zeros_like(student))


def test_vectors_too_short_to_have_a_direction_count_as_zero() -> None:
    """The slope of the angle is 1 / |s|: 1e7 here."""
    student = torch.full((1, 4, 1, 2), 1e-7)
    student[..., 1] = 1e-3
    student.requires_grad_()
    loss = cosine_distance(student, torch.ones(1, 4, 1, 2))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.5)
    assert torch.equal(student.grad[..., 0], torch.zeros(1, 4, 1))


def test_gradient_equals_differences() -> None:
    loss_laws.gradient_equals_differences(cosine_distance, features(2, 3, 2, 4), features(2, 3, 2, 4, seed=1))


def test_ignored_positions_change_nothing() -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, :2], labels[1, 3, 1] = 255, 255
    ignored = (labels == 255)[:, None].expand(-1, 5, -1, -1)
    student, teacher = features(2, 5, 4, 4), features(2, 5, 4, 4, seed=1)
    results = []
    for seed in (2, 3):
        ours = torch.where(ignored, 1e4 * features(2, 5, 4, 4, seed=seed), student).requires_grad_()
        theirs = torch.where(ignored, features(2, 5, 4, 4, seed=seed + 10), teacher)
        loss = cosine_distance(ours, theirs, labels=labels)
        loss.backward()
        assert torch.count_nonzero(ours.grad[ignored]) == 0
        results.append((loss.detach(), ours.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    kept = ~ignored[:, 0]
    alone = independent(student.movedim(1, 3)[kept], teacher.movedim(1, 3)[kept])
    assert float(results[0][0]) == pytest.approx(float(alone), rel=1e-5)


def test_all_positions_ignored_gives_zero_with_a_gradient_path() -> None:
    student = features(2, 3, 4, 4).requires_grad_()
    loss = cosine_distance(student, features(2, 3, 4, 4, seed=1), labels=torch.full((2, 4, 4), 255))
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_labels_at_full_resolution() -> None:
    student, teacher = features(2, 3, 4, 6), features(2, 3, 4, 6, seed=1)
    labels = torch.randint(0, 2, (2, 4, 6), generator=torch.Generator().manual_seed(0)) * 255
    finer = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    expected = cosine_distance(student, teacher, labels=labels)
    assert expected != cosine_distance(student, teacher)
    assert cosine_distance(student, teacher, labels=finer) == expected


def test_no_gradient_to_the_teacher() -> None:
    student, teacher = features(1, 3, 2, 2).requires_grad_(), features(1, 3, 2, 2, seed=1).requires_grad_()
    cosine_distance(student, teacher).backward()
    assert teacher.grad is None


def test_layout_of_memory_does_not_matter() -> None:
    student, teacher = features(1, 3, 4, 5), features(1, 3, 4, 5, seed=1)
    strided = torch.empty(1, 3, 8, 5)[:, :, ::2].copy_(student)
    assert not strided.is_contiguous()
    turned = cosine_distance(strided, teacher.to(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, cosine_distance(student, teacher))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (100 * features(2, 64, 4, 4, seed=seed).to(dtype) for seed in (0, 1))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = cosine_distance(student.requires_grad_(), teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, cosine_distance(student.float(), teacher.float()))
    value.backward()
    assert student.grad.isfinite().all()


def test_shapes_must_agree() -> None:
    with pytest.raises(TapError, match=r'one shape but got \(1, 3, 2, 2\) and \(1, 3, 2, 4\)'):
        cosine_distance(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 4))


def test_class_is_the_function_with_its_settings() -> None:
    student, teacher = features(2, 3, 4, 4), features(2, 3, 4, 4, seed=1)
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    loss = CosineLoss(ignore_index=1)
    assert loss(student, teacher, labels=labels) == cosine_distance(student, teacher, labels=labels, ignore_index=1)
    assert (loss.compares, loss.temperature) == ('features', None)
