"""What a production test measures of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kdplugin.datasets.prompts import read_prompts
from kdplugin.distill.diffusion.diffusion_distillation import DiffusionDistillation
from kdplugin.distill.diffusion.held_out import (
    Questions,
    ask_teacher,
    constant_loss,
    relative_error,
    teacher_sample,
    velocity_loss,
)
from kdplugin.distill.distiller import distillation_of
from kdplugin.models.generators.decode import grid_image, preview
from kdplugin.models.generators.flow import sample
from kdplugin.weights.reading.io import hash_tensors

ROUNDS = 4
"""How often each held-out prompt is asked about."""
SEED = 1234


@dataclass(frozen=True)
class Examination:
    """Held-out prompts, what the teacher says to them, and what it makes of noise.

    Args:
        questions: about velocities.
        noise: (N, C, H, W) that pictures begin with.
        text: (N, M, D).
        pictures: the teacher's latents (N, C, H, W).
        constant: the least loss of a constant velocity.
    """

    questions: Questions
    noise: Tensor
    text: Tensor
    pictures: Tensor
    constant: float


def examine(model: nn.Module, count: int = 16) -> Examination:
    """Return the examination of a student that was built to distil; its teacher answers.

    Args:
        model: built by ``kdplugin.DiffusionDistiller``.
        count: held-out prompts.
    """
    distillation = cast(DiffusionDistillation, distillation_of(model))
    device = next(model.parameters()).device
    prompts = read_prompts(split='held_out')[:count]
    text, empty = distillation.prompts.cache(prompts), distillation.prompts.cache([''])
    text, empty = text.to(device, torch.float32), empty.to(device, torch.float32)
    flow, teacher = distillation.flow, distillation.wan
    questions = ask_teacher(teacher, flow, text, empty, rounds=ROUNDS, seed=SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED + 1)
        noise = torch.randn(len(prompts), flow.channels, *flow.size).to(device)
    pictures = teacher_sample(teacher, flow.schedule, noise, text, empty)
    return Examination(questions, noise, text, pictures, constant_loss(questions))


@dataclass(frozen=True)
class Marks:
    """Of one student.

    Args:
        loss: mean squared difference to the teacher's velocities.
        error: relative error of its latents to the teacher's.
        pictures: its latents (N, C, H, W).
    """

    loss: float
    error: float
    pictures: Tensor


def mark(student: Any, examination: Examination, schedule: Any) -> Marks:
    """Return what a student gets."""
    student.eval()
    pictures = sample(student, schedule, examination.noise, examination.text)
    return Marks(
        velocity_loss(student, examination.questions), relative_error(pictures, examination.pictures), pictures
    )


def constant_error(examination: Examination) -> float:
    """Return the relative error of one picture for all: the mean of the teacher's."""
    return relative_error(examination.pictures.mean(0).expand_as(examination.pictures), examination.pictures)


def teacher_hash(model: nn.Module) -> str:
    """Return the sha256 over the teacher's tensors as they are in memory."""
    distillation = cast(DiffusionDistillation, distillation_of(model))
    return hash_tensors(distillation.wan.module.state_dict())


def save_grid(rows: dict[str, Tensor], path: Path, columns: int = 8) -> None:
    """Write latents (N, C, H, W) of several makers as rows of previews, in the order given."""
    pictures = torch.cat([preview(latents[:columns]) for latents in rows.values()])
    path.parent.mkdir(parents=True, exist_ok=True)
    grid_image(pictures, columns=min(columns, len(next(iter(rows.values()))))).save(path)
