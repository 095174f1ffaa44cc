"""Laws that every distillation loss has to keep, as checks on a function (student, teacher) -> scalar.

N image, C channel or class, H W position.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

Loss = Callable[..., Tensor]


TENSORS = ('student', 'teacher', 'mask', 'values')


def golden(name: str) -> list[dict[str, Any]]:
    """Return the cases of tests/golden/<name>.json, their ``TENSORS`` in float64."""
    cases = json.loads((Path(__file__).parent / f'golden/{name}.json').read_text())['cases']
    return [{k: torch.tensor(v, dtype=torch.float64) if k in TENSORS else v for k, v in one.items()} for one in cases]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradient_reaches_only_the_student(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    student, teacher = (side.clone().requires_grad_() for side in (student, teacher))
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.isfinite().all()
    assert float(student.grad.abs().max()) > 0


def gradient_equals_differences(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    student = student.double().requires_grad_()
    assert loss(student, teacher.double()).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda values: loss(values, teacher.double()), (student,))


def half_precision_is_computed_in_float32(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        ours, theirs = student.to(dtype).requires_grad_(), teacher.to(dtype)
        for enabled in (False, True):
            with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
                value = loss(ours, theirs)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert torch.equal(value, loss(ours.float(), theirs.float()))
            (gradient,) = torch.autograd.grad(value, ours)
            assert gradient.isfinite().all()
            assert gradient.dtype == dtype


def autocast_changes_nothing(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(student, teacher)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(student, teacher))


def layout_of_memory_does_not_matter(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    expected = loss(student, teacher)
    order = tuple(reversed(range(student.dim())))
    permuted = student.permute(order).contiguous().permute(order)
    strided = teacher.repeat_interleave(2, -1)[..., ::2]
    assert not permuted.is_contiguous()
    assert not strided.is_contiguous()
    torch.testing.assert_close(loss(permuted, strided), expected)


def one_image_suffices(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    single = student[:1].clone().requires_grad_()
    loss(single, teacher[:1]).backward()
    assert single.grad.isfinite().all()


def other_shapes_are_an_error(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    from kdplugin.errors import TapError

    for axis in range(1, student.dim()):
        wider = teacher.repeat_interleave(2, axis)
        with pytest.raises(TapError, match=r'Expected .* but got '):
            loss(student, wider)


LAWS = (
    gradient_reaches_only_the_student,
    gradient_equals_differences,
    half_precision_is_computed_in_float32,
    autocast_changes_nothing,
    layout_of_memory_does_not_matter,
    one_image_suffices,
)
SAME_SHAPE_LAWS = (*LAWS, other_shapes_are_an_error)


def zero_at_identity(loss: Loss, student: Tensor, *, value: float = 1e-7, slope: float = 1e-7) -> None:
    student = student.clone().requires_grad_()
    result = loss(student, student.detach().clone())
    result.backward()
    assert abs(float(result.detach())) <= value
    assert float(student.grad.abs().max()) <= slope


def zero_with_a_gradient_path(value: Tensor, student: Tensor) -> None:
    """Check that a loss over nothing is exactly 0 and can be trained on."""
    assert float(value.detach()) == 0
    (gradient,) = torch.autograd.grad(value, student)
    assert torch.equal(gradient, torch.zeros_like(student))


def ignored_positions_do_not_count(loss: Loss, student: Tensor, teacher: Tensor, **settings: Any) -> None:
    """Check a loss with a keyword ``labels``, on maps (N, C, H, W), against garbage where the label is 255."""
    labels = torch.zeros(student.shape[0], *student.shape[2:], dtype=torch.long)
    labels[0, : student.shape[2] // 2], labels[-1, -1, -1] = 255, 255
    ignored = (labels == 255)[:, None]
    results = []
    for garbage in (1e4, -3.0):
        ours = torch.where(ignored, garbage, student).requires_grad_()
        value = loss(ours, torch.where(ignored, -garbage, teacher), labels=labels, **settings)
        (gradient,) = torch.autograd.grad(value, ours)
        assert torch.count_nonzero(gradient[ignored.expand_as(gradient)]) == 0
        results.append((value.detach(), gradient))
    assert float(results[0][0]) > 0
    for value, gradient in results[1:]:
        assert torch.equal(value, results[0][0])
        assert torch.equal(gradient, results[0][1])
    assert not torch.equal(loss(student, teacher, **settings), results[0][0])
    finer = labels.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(loss(student, teacher, labels=finer, **settings), results[0][0])
    assert torch.equal(
        loss(student, teacher, labels=labels, ignore_index=None, **settings), loss(student, teacher, **settings)
    )
    student = student.clone().requires_grad_()
    nothing = loss(student, teacher, labels=torch.full_like(labels, 255), **settings)
    zero_with_a_gradient_path(nothing, student)


def area_does_not_matter(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    tiled = loss(student.repeat(1, 1, 4, 2), teacher.repeat(1, 1, 4, 2))
    torch.testing.assert_close(tiled, loss(student, teacher))


def images_and_positions_have_no_order(loss: Loss, student: Tensor, teacher: Tensor) -> None:
    expected = loss(student, teacher)
    for axis in (0, 2, 3):
        order = torch.randperm(student.shape[axis], generator=torch.Generator().manual_seed(axis))
        turned = loss(student.index_select(axis, order), teacher.index_select(axis, order))
        torch.testing.assert_close(turned, expected)
