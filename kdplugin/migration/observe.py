"""Run a model once to see which module puts out which tensor.

On torch's meta device this costs neither time nor memory, whatever the size of model and image.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.probe import PROBE_SIZE, as_evaluated, synthetic_batch
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import tensors_of
from kdplugin.errors import TapError
from kdplugin.module_paths import find_module

FEATURES = ('backbone', 'neck')
"""Parts of a model that have run to their end although a later part failed."""


@dataclass(frozen=True)
class Call:
    """One call of a module: the tensors it put out, and how often each had been written to by then."""

    tensors: list[Tensor]
    versions: list[int]


@dataclass
class Observation:
    """Every call of every module of one run.

    Args:
        size: height and width of the image.
        calls: by module path, in call order.
        order: paths in the order in which the calls ended.
    """

    size: tuple[int, int]
    calls: dict[str, list[Call]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def only_output(self, call: Call, index: int) -> str | None:
        """Return the module that puts out one tensor of a call, and nothing else in the whole run; None if none does.

        Of several, the last to end is the outermost. A module whose output was written to before the call does not
        count.
        """
        tensor, version = call.tensors[index], call.versions[index]
        for path in filter(None, reversed(self.order)):
            calls = self.calls[path]
            if len(calls) == len(calls[0].tensors) == 1 and calls[0].tensors[0] is tensor:
                return path if calls[0].versions[0] == version else None
        return None


def observe(model: nn.Module, paths: Sequence[str], owner: str, size: tuple[int, int]) -> Observation:
    """Run a model on one random image of a size; where the meta device does not suffice, on a small one on the CPU.

    Args:
        model: mmdet's or mmseg's; it stays as it is.
        paths: modules that must have run.
        owner: what messages call it.
        size: height and width of the image.

    Raises:
        PathError: a path names no module.
        TapError: a module did not run.
    """
    for path in paths:
        find_module(model, path, owner)
    found, error = run_once(copy.deepcopy(model).to('meta'), size)
    unsure = error is not None and any(path.split('.')[0] not in FEATURES for path in paths)
    if unsure or any(path not in found.calls for path in paths):
        found, error = run_once(model, PROBE_SIZE)
    silent = [path for path in paths if path not in found.calls]
    if silent:
        what = f'{type(error).__name__}: {error}' if error is not None else 'no call'
        raise TapError(
            f'Expected modules {silent} of the {owner} to run on a synthetic image but got {what}. '
            'Tap modules that run during training.'
        )
    return found


def run_once(model: nn.Module, size: tuple[int, int]) -> tuple[Observation, Exception | None]:
    """Run a model in eval mode without gradient and note every call until it ends or fails."""
    found = Observation(size)
    with contextlib.ExitStack() as stack:
        for path, module in model.named_modules():

            def keep(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
                with contextlib.suppress(TapError):
                    tensors = tensors_of(output, path)
                    found.order.append(path)
                    found.calls.setdefault(path, []).append(Call(tensors, [tensor._version for tensor in tensors]))

            stack.enter_context(module.register_forward_hook(keep))
        stack.enter_context(preserved_rng())
        stack.enter_context(torch.no_grad())
        stack.enter_context(as_evaluated(model))
        inputs, samples = synthetic_batch(model, size)
        try:
            model(inputs, samples, mode='tensor')
        except Exception as error:  # two-stage models need values behind the neck, which meta tensors have not
            return found, error
    return found, None
