"""The model of a run, whatever wraps it."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel


def model_of(runner: Runner) -> nn.Module:
    """Return a run's model without its data-parallel wrapper."""
    model: Any = runner.model
    return model.module if is_model_wrapper(model) else model


def is_sharded(runner: Runner) -> bool:
    """Tell whether each process holds a piece of the parameters."""
    return isinstance(runner.model, FullyShardedDataParallel)


def weights_of(runner: Runner) -> dict[str, Tensor]:
    """Return a model's ``state_dict`` with the names of the plain model; empty on ranks that a sharded one leaves out.

    Gathers the pieces of a sharded model, so all ranks have to call it.
    """
    return runner.model.state_dict() if is_sharded(runner) else model_of(runner).state_dict()
