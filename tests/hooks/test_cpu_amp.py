"""Mixed precision on CPUs: the forward pass in bfloat16, weights in float32."""

from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import Tensor, nn

import kdplugin.registry  # noqa: F401


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 1)
        self.seen: list[torch.dtype] = []

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.linear(inputs)
        self.seen.append(outputs.dtype)
        return outputs.float().square().mean()


def wrapped(model: nn.Module, kind: str, **settings: int) -> OptimWrapper:
    return build_optim_wrapper(model, dict(type=kind, optimizer=dict(type='SGD', lr=0.01), **settings))


def step(model: Tiny, wrapper: OptimWrapper) -> float:
    with wrapper.optim_context(model):
        loss = model(torch.linspace(-1, 1, 256).reshape(4, 64))
    wrapper.update_params(loss)
    return float(loss.detach())


def test_forward_in_bfloat16_weights_in_float32() -> None:
    torch.manual_seed(0)
    model = Tiny()
    before = model.linear.weight.detach().clone()
    wrapper = wrapped(model, 'kdplugin.CPUAmpOptimWrapper')
    first, *_, last = [step(model, wrapper) for _ in range(10)]
    assert set(model.seen) == {torch.bfloat16}
    assert model.linear.weight.dtype == torch.float32
    assert not torch.equal(model.linear.weight, before)
    assert last < 0.9 * first
    assert not torch.is_autocast_enabled('cpu')


def test_close_to_full_precision() -> None:
    losses = {}
    for kind in ('OptimWrapper', 'kdplugin.CPUAmpOptimWrapper'):
        torch.manual_seed(0)
        model = Tiny()
        wrapper = wrapped(model, kind)
        losses[kind] = [step(model, wrapper) for _ in range(5)]
    plain, amp = losses.values()
    assert amp != plain
    assert amp == pytest.approx(plain, rel=0.05)


def test_gradients_accumulate() -> None:
    model = Tiny()
    wrapper = wrapped(model, 'kdplugin.CPUAmpOptimWrapper', accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.linear.weight.detach().clone()
    step(model, wrapper)
    assert torch.equal(model.linear.weight, before)
    step(model, wrapper)
    assert not torch.equal(model.linear.weight, before)
