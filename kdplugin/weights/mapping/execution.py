"""In which order the modules of a model run, observed without leaving a trace on it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode without gradient; modes, buffers and random states are as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    buffers = {module: dict(module._buffers) for module in model.modules()}
    values = [(value, value.clone()) for own in buffers.values() for value in own.values() if value is not None]
    devices = sorted(
        {value.device.index for value in model.parameters() if value.is_cuda and value.device.index is not None}
    )
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - models draw from the global one
    try:
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            model.eval()
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for module, own in buffers.items():
                module._buffers.clear()
                module._buffers.update(own)
            for value, before in values:
                if not torch.equal(value, before):
                    value.copy_(before)


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model with a tensor, a tuple of arguments or a dict of them."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)


def execution_order(model: nn.Module, inputs: Any) -> dict[str, int]:
    """Return when each module began to run first in a forward pass: path -> rank.

    Args:
        model: any module; it is left as it was.
        inputs: a tensor, a tuple of positional or a dict of keyword arguments.
    """
    order: dict[str, int] = {}
    handles = []
    for name, module in model.named_modules():

        def note(_module: nn.Module, _args: Any, name: str = name) -> None:
            order.setdefault(name, len(order))

        handles.append(module.register_forward_pre_hook(note))
    try:
        with untouched(model):
            call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return order


def largest_difference(first: Any, second: Any) -> float:
    """Return the largest absolute difference between two outputs: tensors, or containers of tensors in order.

    It is infinite where they differ in number or shape, where one alone has a NaN, and where they hold no tensors.
    """
    left, right = list(tensors_in(first)), list(tensors_in(second))
    if not left or len(left) != len(right) or any(a.shape != b.shape for a, b in zip(left, right, strict=True)):
        return float('inf')
    return max(_difference(a, b) for a, b in zip(left, right, strict=True))


def _difference(first: Tensor, second: Tensor) -> float:
    same = (first == second) | (first.isnan() & second.isnan())
    return (
        float((first - second).abs().nan_to_num(nan=float('inf')).masked_fill(same, 0).amax()) if same.numel() else 0.0
    )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the floating-point tensors of a nested output, in order."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif is_dataclass(value):
        for one in fields(value):
            yield from tensors_in(getattr(value, one.name))
