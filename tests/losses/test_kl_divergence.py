"""Laws and reference values of the KL divergence.

N image, C class, H W position.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import loss_laws
import pytest
import torch
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import KLDivergenceLoss, kl_divergence
from kdplugin.losses.kl_divergence import sigmoid_divergence, softmax_divergence

GOLDEN = json.loads((Path(__file__).parents[1] / 'golden/kl_divergence.json').read_text())['cases']


def logits(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def independent(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Write the formula out in float64: T^2 mean over N H W of sum_c p (ln p - ln q)."""
    p = (teacher.double() / temperature).softmax(1)
    q = (student.double() / temperature).softmax(1)
    return temperature**2 * (p * (p.log() - q.log())).sum(1).mean()


@pytest.mark.parametrize('case', GOLDEN, ids=lambda case: f'{case["name"]}-T{case["temperature"]:g}')
def test_golden_values(case: dict[str, Any]) -> None:
    labels = None if case['labels'] is None else torch.tensor(case['labels'])
    value = kl_divergence(
        torch.tensor(case['student']),
        torch.tensor(case['teacher']),
        temperature=case['temperature'],
        labels=labels,
    )
    assert float(value) == pytest.approx(case['value'], rel=2e-5, abs=1e-7)


def test_value_by_hand() -> None:
    """P = (3/4, 1/4), q = (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log()
    assert float(kl_divergence(student, teacher)) == pytest.approx(0.13081203594113694)


def test_the_direction_is_teacher_to_student() -> None:
    student, teacher = logits(2, 4, 3, 3), logits(2, 4, 3, 3, seed=1)
    assert kl_divergence(student, teacher) != pytest.approx(float(kl_divergence(teacher, student)), rel=0.01)
    assert float(kl_divergence(student, teacher)) == pytest.approx(float(independent(student, teacher, 1)), rel=1e-5)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_gradient_equals_autograd_of_the_formula(temperature: float) -> None:
    student, teacher = logits(2, 5, 3, 4).requires_grad_(), logits(2, 5, 3, 4, seed=1)
    (ours,) = torch.autograd.grad(kl_divergence(student, teacher, temperature=temperature), student)
    (theirs,) = torch.autograd.grad(independent(student, teacher, temperature), student)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    # and by hand: T (q - p) / (N H W)
    by_hand = temperature * ((student / temperature).softmax(1) - (teacher / temperature).softmax(1)) / (2 * 3 * 4)
    torch.testing.assert_close(ours, by_hand, rtol=1e-4, atol=1e-7)


def test_gradient_equals_differences() -> None:
    loss_laws.gradient_equals_differences(kl_divergence, logits(2, 3, 2, 2), logits(2, 3, 2, 2, seed=1))


def test_bernoulli_divergence_is_that_of_two_classes() -> None:
    """sigmoid(x) is the softmax of (x, 0)."""
    student, teacher = logits(2, 3, 4), logits(2, 3, 4, seed=1)
    two = (torch.stack([side, torch.zeros_like(side)], 1) for side in (student, teacher))
    expected = softmax_divergence(*two, temperature=3.0, dim=1)
    torch.testing.assert_close(sigmoid_divergence(student, teacher, temperature=3.0), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(sigmoid_divergence(student, student), torch.zeros(2, 3, 4))
    far = sigmoid_divergence(torch.tensor(-1e4), torch.tensor(1e4))
    assert float(far) == pytest.approx(1e4)


def test_temperature_squared_keeps_the_gradient_size() -> None:
    """For large T the gradient tends to (s - t) / (C N H W), whatever T; without T^2 it would fall as 1 / T^2."""
    student, teacher = logits(1, 4, 2, 2).requires_grad_(), logits(1, 4, 2, 2, seed=1)
    sizes = []
    for temperature in (100.0, 400.0):
        loss = kl_divergence(student, teacher, temperature=temperature)
        (gradient,) = torch.autograd.grad(loss, student)
        sizes.append(float(gradient.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 8.0])
def test_zero_and_no_gradient_at_identity(temperature: float) -> None:
    student = logits(2, 6, 4, 3).requires_grad_()
    loss = kl_divergence(student, student.detach().clone(), temperature=temperature)
    loss.backward()
    assert float(loss) == 0
    assert float(student.grad.abs().max()) < 1e-7


def test_never_negative() -> None:
    for seed in range(20):
        assert kl_divergence(logits(1, 3, 2, 2, seed=seed), logits(1, 3, 2, 2, seed=seed + 50)) > 0


def test_invariant_to_a_constant_per_pixel() -> None:
    student, teacher = logits(2, 5, 3, 4), logits(2, 5, 3, 4, seed=1)
    moved = kl_divergence(student + logits(2, 1, 3, 4, seed=2), teacher + logits(2, 1, 3, 4, seed=3), temperature=2.0)
    torch.testing.assert_close(moved, kl_divergence(student, teacher, temperature=2.0), rtol=1e-5, atol=1e-6)


def test_invariant_to_the_order_of_classes_images_and_pixels() -> None:
    student, teacher = logits(3, 5, 4, 4), logits(3, 5, 4, 4, seed=1)
    expected = kl_divergence(student, teacher)
    for axis in range(4):
        order = torch.randperm(student.shape[axis], generator=torch.Generator().manual_seed(axis))
        turned = kl_divergence(student.index_select(axis, order), teacher.index_select(axis, order))
        torch.testing.assert_close(turned, expected)


def test_value_does_not_grow_with_the_area() -> None:
    student, teacher = logits(2, 5, 3, 4), logits(2, 5, 3, 4, seed=1)
    expected = kl_divergence(student, teacher)
    tiled = kl_divergence(student.repeat(1, 1, 4, 8), teacher.repeat(1, 1, 4, 8))
    torch.testing.assert_close(tiled, expected)
    batchmean = torch.nn.functional.kl_div(student.log_softmax(1), teacher.softmax(1), reduction='batchmean')
    assert float(batchmean) == pytest.approx(12 * float(expected), rel=1e-5)


def test_ignored_pixels_change_nothing() -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    labels[0, :2], labels[1, 3, 1] = 255, 255
    ignored = (labels == 255)[:, None].expand(-1, 5, -1, -1)
    student, teacher = logits(2, 5, 4, 4), logits(2, 5, 4, 4, seed=1)
    results = []
    for seed in (2, 3):
        ours = torch.where(ignored, logits(2, 5, 4, 4, seed=seed, scale=1e30), student).requires_grad_()
        theirs = torch.where(ignored, logits(2, 5, 4, 4, seed=seed + 10, scale=1e4), teacher)
        loss = kl_divergence(ours, theirs, temperature=2.0, labels=labels)
        loss.backward()
        assert torch.count_nonzero(ours.grad[ignored]) == 0
        results.append((loss.detach(), ours.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    kept = ~ignored[:, 0]
    alone = independent(student.movedim(1, 3)[kept], teacher.movedim(1, 3)[kept], 2.0)
    assert float(results[0][0]) == pytest.approx(float(alone), rel=1e-5)


def test_another_ignore_index() -> None:
    student, teacher = logits(1, 3, 1, 2), logits(1, 3, 1, 2, seed=1)
    labels = torch.tensor([[[0, 1]]])
    first = kl_divergence(student[..., :1], teacher[..., :1])
    assert kl_divergence(student, teacher, labels=labels, ignore_index=1) == first
    assert kl_divergence(student, teacher, labels=labels, ignore_index=None) == kl_divergence(student, teacher)


def test_all_pixels_ignored_gives_zero_with_a_gradient_path() -> None:
    student = logits(2, 3, 4, 4).requires_grad_()
    loss = kl_divergence(student, logits(2, 3, 4, 4, seed=1), labels=torch.full((2, 4, 4), 255))
    loss.backward()
    assert float(loss) == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize('factor', [2, 4])
def test_labels_of_another_size(factor: int) -> None:
    student, teacher = logits(2, 3, 4, 6), logits(2, 3, 4, 6, seed=1)
    labels = torch.randint(0, 2, (2, 4, 6), generator=torch.Generator().manual_seed(0)) * 255
    finer = labels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    expected = kl_divergence(student, teacher, labels=labels)
    assert expected != kl_divergence(student, teacher)
    assert kl_divergence(student, teacher, labels=finer) == expected


def test_no_gradient_to_the_teacher() -> None:
    student, teacher = logits(1, 3, 2, 2).requires_grad_(), logits(1, 3, 2, 2, seed=1).requires_grad_()
    kl_divergence(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


def test_layout_of_memory_does_not_matter() -> None:
    student, teacher = logits(2, 3, 4, 5), logits(2, 3, 4, 5, seed=1)
    expected = kl_divergence(student, teacher)
    permuted = student.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    assert not permuted.is_contiguous()
    torch.testing.assert_close(kl_divergence(permuted, teacher), expected)
    strided = torch.empty(2, 3, 8, 5)[:, :, ::2].copy_(student)
    torch.testing.assert_close(kl_divergence(strided, teacher.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = logits(2, 20, 4, 4).to(dtype), logits(2, 20, 4, 4, seed=1).to(dtype)
    value = kl_divergence(student.requires_grad_(), teacher, temperature=4.0)
    assert value.dtype == torch.float32
    assert torch.equal(value, kl_divergence(student.float(), teacher.float(), temperature=4.0))
    value.backward()
    assert student.grad.dtype == dtype
    assert student.grad.isfinite().all()


def test_same_value_under_autocast() -> None:
    student, teacher = logits(2, 5, 4, 4), logits(2, 5, 4, 4, seed=1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = kl_divergence(student, teacher, temperature=3.0)
    assert value.dtype == torch.float32
    assert torch.equal(value, kl_divergence(student, teacher, temperature=3.0))


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_extreme_logits_stay_finite(scale: float) -> None:
    student = logits(2, 5, 3, 3, scale=scale).requires_grad_()
    loss = kl_divergence(student, logits(2, 5, 3, 3, seed=1, scale=scale))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_shapes_must_agree() -> None:
    with pytest.raises(TapError, match=r'one shape but got \(1, 3, 2, 2\) and \(1, 4, 2, 2\)'):
        kl_divergence(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2))


def test_sigmoid_scores_are_one_coin_for_each_class() -> None:
    """Against torch's own KL between Bernoulli distributions, in float64."""
    student, teacher = logits(2, 4, 3, 3).double(), logits(2, 4, 3, 3, seed=1).double()
    coins = [torch.distributions.Bernoulli(logits=side / 2) for side in (teacher, student)]
    expected = 4 * torch.distributions.kl_divergence(*coins).sum(1)
    value = kl_divergence(student, teacher, temperature=2.0, sigmoid=True)
    assert float(value) == pytest.approx(float(expected.mean()), rel=1e-12)
    labels = torch.full((2, 3, 3), 255)
    labels[1, 0, 2] = 0
    masked = KLDivergenceLoss(temperature=2.0, sigmoid=True)(student, teacher, labels=labels)
    assert float(masked) == pytest.approx(float(expected[1, 0, 2]), rel=1e-12)


def test_class_is_the_function_with_its_settings() -> None:
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    labels = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    loss = KLDivergenceLoss(temperature=3.0, ignore_index=1)
    expected = kl_divergence(student, teacher, temperature=3.0, labels=labels, ignore_index=1)
    assert loss(student, teacher, labels=labels) == expected
    assert (loss.compares, loss.temperature) == ('logits', 3.0)
    assert not list(loss.parameters())


@pytest.mark.parametrize('temperature', [0, -1.0, float('nan'), float('inf')])
def test_temperature_must_be_positive_and_finite(temperature: float) -> None:
    message = rf'Expected a finite temperature > 0 but got {temperature}\. Try 1 to 8'
    with pytest.raises(ConfigError, match=message):
        KLDivergenceLoss(temperature=temperature)
