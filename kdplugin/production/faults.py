"""Faults that a production test puts in on purpose: a test that none of them fails would prove nothing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.hooks import weight_projection_hook
from kdplugin.weights.project import load_into

WEIGHTS = 'diffusion_pytorch_model.safetensors'


@contextlib.contextmanager
def teacher_sees_zeros() -> Iterator[None]:
    """Give the teacher zeros in place of the noisy latents, within the block."""
    right = WanTeacher.outputs

    def wrong(self: WanTeacher, latents: Tensor, *args: Any, **kwargs: Any) -> Any:
        return right(self, torch.zeros_like(latents), *args, **kwargs)

    with mock.patch.object(WanTeacher, 'outputs', wrong):
        yield


@contextlib.contextmanager
def rows_of_others() -> Iterator[None]:
    """Let each projected matrix have its rows moved by half their number, as when q, k and v are mixed up."""

    def wrong(target: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
        return load_into(target, {name: moved(value) for name, value in tensors.items()})

    with mock.patch.object(weight_projection_hook, 'load_into', wrong):
        yield


def moved(value: Tensor) -> Tensor:
    """Return a matrix with its rows moved by half their number; vectors as they are."""
    return value.roll(len(value) // 2, 0) if value.ndim > 1 and len(value) > 1 else value


@contextlib.contextmanager
def teacher_is_trained() -> Iterator[None]:
    """Let the teacher's first parameter move a little each time that it is asked."""
    right = WanTeacher.outputs

    def wrong(self: WanTeacher, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            next(self.module.parameters()).mul_(1.001)
        return right(self, *args, **kwargs)

    with mock.patch.object(WanTeacher, 'outputs', wrong):
        yield


def damaged_copy(folder: Path, target: Path) -> Path:
    """Return a copy of a saved student in which one matrix is lost: zeros."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    tensors = load_file(target / WEIGHTS)
    name = next(name for name in tensors if name.endswith('attn1.to_v.weight'))
    save_file({**tensors, name: torch.zeros_like(tensors[name])}, target / WEIGHTS)
    return target
