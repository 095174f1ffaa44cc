"""Small arithmetic on what a step is made of: tapped tensors and entries of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.losses.base import precise

Tapped = Mapping[str, list[Tensor]]


def precise_all(tapped: Tapped) -> dict[str, list[Tensor]]:
    """Return half precision as float32, all else as it is."""
    return {
        tap: [precise(value) if value.is_floating_point() else value for value in tensors]
        for tap, tensors in tapped.items()
    }


class _Nothing(torch.autograd.Function):
    """A zero that depends on parameters without reading them."""

    @staticmethod
    def forward(ctx: Any, like: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        return like.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[Tensor | None, ...]:
        return None, *(torch.zeros_like(value) for value in ctx.parameters)


def nothing(module: nn.Module | None, like: Tensor) -> Tensor:
    """Return a 0 on the device of ``like`` that gives every parameter of a module a gradient of zeros.

    DistributedDataParallel waits for the gradient of each. No element is read, so a NaN among them does no harm.
    """
    parameters = [] if module is None else [value for value in module.parameters() if value.requires_grad]
    return _Nothing.apply(like, *parameters) if parameters else like.new_zeros(())


def scale(value: Any, weight: float) -> Any:
    """Return a loss entry, a tensor or a list of them, times a weight."""
    return value * weight if isinstance(value, Tensor) else [item * weight for item in value]


def total(losses: Mapping[str, Any]) -> Tensor:
    """Add up what mmengine's ``parse_losses`` would add up; 0 where there is nothing."""
    terms = (
        value.mean() if isinstance(value, Tensor) else sum(item.mean() for item in value)
        for name, value in losses.items()
        if 'loss' in name
    )
    return sum(terms, start=torch.zeros(()))
