"""The measures: the same questions again, a loss that is zero for the teacher, and the best constant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from wan_fixtures import pipeline

from kdplugin.distill.diffusion.flow_steps import FlowSteps
from kdplugin.distill.diffusion.held_out import (
    Questions,
    ask_teacher,
    constant_loss,
    relative_error,
    teacher_call,
    teacher_sample,
    velocity_loss,
)
from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.models.generators.flow import flow_schedule

__all__ = ['pipeline']


class Answers(torch.nn.Module):
    """Calls something like a student."""

    def __init__(self, call: object) -> None:
        super().__init__()
        self.call = call

    def forward(self, *asked: torch.Tensor, return_dict: bool = False) -> object:
        return self.call(*asked)  # type: ignore[operator]


def test_questions_are_the_same_again_and_the_teacher_answers_them_without_loss(pipeline: Path) -> None:
    teacher = WanTeacher(pipeline, 'float32')
    flow = FlowSteps(flow_schedule(teacher.scheduler, 6), 16, (4, 4), 2)
    text, empty = torch.randn(3, 4, 32), torch.zeros(1, 4, 32)
    state = torch.get_rng_state()
    first, second = (ask_teacher(teacher, flow, text, empty, rounds=2, seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.latents.shape == (6, 16, 4, 4)
    for one, other in zip(vars(first).values(), vars(second).values(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first.latents, ask_teacher(teacher, flow, text, empty, rounds=2, seed=6).latents)
    assert velocity_loss(Answers(teacher_call(teacher, empty)), first, batch=4) == pytest.approx(0, abs=1e-9)
    assert velocity_loss(Answers(lambda x, t, c: (torch.zeros_like(x),)), first) == pytest.approx(
        float(first.answers.square().mean()), rel=1e-5
    )


def test_no_constant_is_better_than_the_best_one() -> None:
    torch.manual_seed(0)
    asked = Questions(torch.zeros(5, 2, 3, 3), torch.zeros(5), torch.zeros(5, 1, 1), torch.randn(5, 2, 3, 3))
    best = asked.answers.mean(0)
    assert constant_loss(asked) == pytest.approx(
        velocity_loss(Answers(lambda x, t, c: (best.expand_as(x),)), asked), rel=1e-5
    )
    near = best + 0.01 * torch.randn(best.shape)
    assert velocity_loss(Answers(lambda x, t, c: (near.expand_as(x),)), asked) > constant_loss(asked)


def test_the_modes_of_modules_come_back() -> None:
    asked = Questions(torch.zeros(1, 2, 2, 2), torch.zeros(1), torch.zeros(1, 1, 1), torch.zeros(1, 2, 2, 2))
    student = Answers(lambda x, t, c: (x,)).train()
    velocity_loss(student, asked)
    assert student.training


def test_the_teachers_pictures_follow_its_own_velocity(pipeline: Path) -> None:
    teacher = WanTeacher(pipeline, 'float32')
    schedule = flow_schedule(teacher.scheduler, 3)
    torch.manual_seed(0)
    latents, text, empty = torch.randn(2, 16, 4, 4), torch.randn(2, 4, 32), torch.zeros(1, 4, 32)
    found = teacher_sample(teacher, schedule, latents, text, empty)
    for step in range(3):
        velocity, _ = teacher.outputs(latents, schedule.timesteps[step].expand(2), text)
        latents = latents + (schedule.sigmas[step + 1] - schedule.sigmas[step]) * velocity
    torch.testing.assert_close(found, latents)
    assert relative_error(latents, latents) == 0
    assert relative_error(torch.zeros_like(latents), latents) == pytest.approx(1)
