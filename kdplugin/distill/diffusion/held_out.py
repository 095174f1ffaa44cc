"""How far a student is from its teacher on prompts and noise that it has not seen.

N question, C channel, H W latent pixel, M token of text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.distill.diffusion.flow_steps import FlowSteps
from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.models.generators.flow import FlowSchedule, sample


@dataclass(frozen=True)
class Questions:
    """What both were asked, and what the teacher said.

    Args:
        latents: noisy (N, C, H, W).
        timesteps: (N,).
        text: (N, M, D).
        answers: velocities (N, C, H, W).
    """

    latents: Tensor
    timesteps: Tensor
    text: Tensor
    answers: Tensor


def ask_teacher(
    teacher: WanTeacher, flow: FlowSteps, text: Tensor, empty: Tensor, *, rounds: int, seed: int
) -> Questions:
    """Return questions as training draws them: each prompt ``rounds`` times, the same for the same seed."""
    found = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(rounds):
            question = flow.draw(teacher, text, empty)
            answers, _ = teacher.outputs(question.latents, question.timesteps, text, empty)
            found.append((question.latents, question.timesteps, text, answers))
    return Questions(*(torch.cat(parts) for parts in zip(*found, strict=True)))


@torch.no_grad()
def velocity_loss(student: Any, questions: Questions, batch: int = 16) -> float:
    """Return the mean squared difference to the teacher's answers."""
    training, total = student.training, 0.0
    student.eval()
    for start in range(0, len(questions.latents), batch):
        part = slice(start, start + batch)
        found = student(questions.latents[part], questions.timesteps[part], questions.text[part], return_dict=False)[0]
        total += float(F.mse_loss(found.float(), questions.answers[part], reduction='sum'))
    student.train(training)
    return total / questions.answers.numel()


def constant_loss(questions: Questions) -> float:
    """Return the least mean squared difference of any velocity that is the same for all questions: their variance."""
    return float((questions.answers - questions.answers.mean(0)).square().mean())


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return ||found - expected|| / ||expected||."""
    return float((found - expected).norm() / expected.norm())


def teacher_sample(teacher: WanTeacher, schedule: FlowSchedule, noise: Tensor, text: Tensor, empty: Tensor) -> Tensor:
    """Return the latents that the teacher makes of noise, by the same steps as ``sample``."""
    return sample(teacher_call(teacher, empty), schedule, noise, text)


def teacher_call(teacher: WanTeacher, empty: Tensor) -> Callable[..., tuple[Tensor]]:
    """Return the teacher as something that is called like a student."""

    def call(latents: Tensor, timesteps: Tensor, text: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (teacher.outputs(latents, timesteps, text, empty)[0],)

    return call
