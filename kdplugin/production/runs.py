"""Runs of a production test: trained, interrupted and resumed, reloaded."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from kdplugin import launch
from kdplugin.models.generators import WanLiteStudent
from kdplugin.weights.reading.io import hash_tensors


class _Stopped(Exception):
    """The run was interrupted on purpose."""


class StopAfter(Hook):
    """Interrupt a run behind an iteration, when its checkpoint is written."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.iter + 1 == self.iteration:
            raise _Stopped


class KeepStart(Hook):
    """Keep the weights that training begins with."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}


def train(config: Config, *, stop: int | None = None, resume: bool = False) -> tuple[nn.Module, dict[str, Tensor]]:
    """Train a config and return its model and the weights that it began with.

    Args:
        config: of the run.
        stop: iteration behind which it is interrupted.
        resume: from its newest checkpoint.
    """
    config.experiment_name = f'{Path(config.work_dir).name}_{time.time_ns()}'  # two runs in one second are two
    runner = launch.build_runner(launch.prepare(config, work_dir=config.work_dir, resume='auto' if resume else None))
    start = KeepStart()
    runner.register_hook(start)
    if stop is not None:
        runner.register_hook(StopAfter(stop))
    with contextlib.suppress(_Stopped):
        runner.train()
    return runner.model, start.weights


def weights_hash(model: nn.Module) -> str:
    """Return the sha256 over a student's tensors."""
    return hash_tensors(model.state_dict())


def with_weights(model: Any, weights: dict[str, Tensor]) -> WanLiteStudent:
    """Return a plain student of the same sizes with other weights."""
    student = WanLiteStudent.from_config(model.config)
    student.load_state_dict(weights, strict=True)
    return student.eval().to(next(iter(weights.values())).device)


def reload(folder: Path) -> WanLiteStudent:
    """Return the student that a run left in its work dir."""
    return WanLiteStudent.from_pretrained(folder / 'student').eval()


@torch.no_grad()
def outputs_hash(student: Any, latents: Tensor, timesteps: Tensor, text: Tensor) -> str:
    """Return the sha256 over what a student answers."""
    student.eval()
    return hash_tensors({'velocity': student(latents, timesteps, text, return_dict=False)[0]})
