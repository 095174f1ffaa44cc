"""Sums, zeros and precisions of the terms of a step."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdplugin.distill.terms import nothing, precise_all, scale, total


def test_total_is_what_parse_losses_adds_up() -> None:
    from mmengine.model import BaseModel

    losses = {
        'loss_a': torch.tensor([1.0, 3.0]), 'b.loss': [torch.tensor(4.0), torch.tensor([1.0, 2.0])],
        'acc': torch.tensor(9.0),
    }  # fmt: skip
    assert total(losses) == BaseModel.parse_losses(None, losses)[0] == 2 + 4 + 1.5  # type: ignore[arg-type]


def test_nothing_adds_up_to_a_tensor_of_0() -> None:
    """A student without a task: its KD terms are divided and scaled by tensors all the same."""
    assert torch.equal(total({'acc': torch.tensor(9.0)}), torch.tensor(0.0))


def test_scale_reaches_every_tensor_of_an_entry() -> None:
    one, other = torch.tensor(1.0), torch.tensor(2.0)
    assert scale(one, 3) == 3
    assert [float(value) for value in scale([one, other], 3)] == [3, 6]


def test_half_precision_becomes_float32_and_nothing_else_changes() -> None:
    tensors = {
        dtype: [torch.zeros(2, dtype=dtype)] for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.long)
    }
    found = precise_all({str(dtype): values for dtype, values in tensors.items()})
    assert [value.dtype for values in found.values() for value in values] == [
        torch.float32, torch.float32, torch.float64, torch.long
    ]  # fmt: skip
    assert found['torch.int64'][0] is tensors[torch.long][0]


def test_nothing_gives_every_trained_parameter_a_gradient_of_zeros() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Linear(2, 2))
    module[1].bias.requires_grad_(False)
    with torch.no_grad():
        module[0].weight.fill_(float('nan'))
    zero = nothing(module, torch.tensor(5.0))
    assert (zero.item(), zero.dim()) == (0, 0)
    zero.backward()
    trained = [value for value in module.parameters() if value.requires_grad]
    assert len(trained) == 3
    assert all(value.grad is not None and value.grad.shape == value.shape for value in trained)
    assert all(not value.grad.any() for value in trained)
    assert module[1].bias.grad is None


@pytest.mark.parametrize('module', [None, nn.Identity()])
def test_nothing_of_no_parameters_is_a_plain_zero(module: nn.Module | None) -> None:
    zero = nothing(module, torch.tensor(5.0, dtype=torch.float64))
    assert (zero.item(), zero.dtype, zero.requires_grad) == (0, torch.float64, False)
