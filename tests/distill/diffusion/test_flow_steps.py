"""What a step asks: the scheduler's levels, noised images, or points on the teacher's own path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from wan_fixtures import pipeline

from kdplugin.distill.diffusion.flow_steps import FlowSteps, flow_mistakes
from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.errors import DataError
from kdplugin.models.generators.flow import FlowSchedule, flow_schedule

__all__ = ['pipeline']


class Straight:
    """Answers with noise minus image; counts how often it is asked."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.asked = images, 0

    def outputs(self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, empty: Any) -> Any:
        self.asked += 1
        sigma = (timesteps / 1000).reshape(-1, 1, 1, 1)
        return (latents - self.images) / sigma, {}


def steps(ode_steps: int = 3, levels: int = 8) -> FlowSteps:
    sigmas = torch.linspace(1, 0, levels + 1)
    return FlowSteps(FlowSchedule(sigmas, 1000 * sigmas[:-1]), 2, (4, 4), ode_steps)


@pytest.mark.parametrize('ode_steps', [1, 3, 20])
def test_points_lie_on_the_teachers_path_whatever_the_steps(ode_steps: int) -> None:
    torch.manual_seed(0)
    teacher = Straight(torch.randn(5, 2, 4, 4))
    state = torch.get_rng_state()
    question = steps(ode_steps).draw(teacher, torch.zeros(5, 1, 1))  # type: ignore[arg-type]
    torch.set_rng_state(state)
    index = torch.randint(8, (5,))
    noise = torch.randn(5, 2, 4, 4)
    sigma = (1 - index / 8).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(question.latents, (1 - sigma) * teacher.images + sigma * noise, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(question.timesteps, 1000 * (1 - index / 8))
    assert teacher.asked == min(ode_steps, int(index.max()))


def test_images_are_noised_and_the_teacher_is_not_asked() -> None:
    torch.manual_seed(0)
    images = [torch.randn(2, 6, 4) for _ in range(3)]
    teacher = Straight(torch.zeros(1))
    state = torch.get_rng_state()
    question = steps().draw(teacher, torch.zeros(3, 1, 1), None, images)  # type: ignore[arg-type]
    torch.set_rng_state(state)
    index = torch.randint(8, (3,))
    noise = torch.randn(3, 2, 6, 4)
    sigma = (1 - index / 8).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(question.latents, (1 - sigma) * torch.stack(images) + sigma * noise)
    assert teacher.asked == 0


def test_every_level_is_drawn_equally_often() -> None:
    torch.manual_seed(0)
    found = steps().draw(None, torch.zeros(4000, 1, 1), None, torch.zeros(4000, 2, 1, 1)).timesteps  # type: ignore[arg-type]
    counts = torch.stack([(found == time).sum() for time in 1000 * torch.linspace(1, 0, 9)[:-1]])
    assert counts.sum() == 4000
    assert counts.min() > 400


def test_with_a_real_teacher_the_path_is_the_schedulers(pipeline: Path) -> None:
    """In as many steps as there are levels before it, a point is where a whole sampling passes."""
    teacher = WanTeacher(pipeline, 'float32')
    schedule = flow_schedule(teacher.scheduler, 4)
    torch.manual_seed(3)
    text = torch.randn(6, 5, 32)
    state = torch.get_rng_state()
    question = FlowSteps(schedule, 16, (4, 4), 99).draw(teacher, text)
    torch.set_rng_state(state)
    index = torch.randint(4, (6,))
    latents = torch.randn(6, 16, 4, 4)
    for level in range(4):
        for row in (index == level).nonzero()[:, 0]:
            torch.testing.assert_close(question.latents[row], latents[row], rtol=1e-3, atol=1e-4)
        velocity, _ = teacher.outputs(latents, schedule.timesteps[level].expand(6), text)
        latents = latents + (schedule.sigmas[level + 1] - schedule.sigmas[level]) * velocity


@pytest.mark.parametrize('images', [[torch.zeros(2, 4, 4), torch.zeros(2, 4, 6)], [torch.zeros(3, 4, 4)] * 2])
def test_latents_of_other_sizes_or_channels_are_refused(images: list[torch.Tensor]) -> None:
    with pytest.raises(DataError, match=r'Expected image latents \(2, H, W\) of one size in a batch but got'):
        steps().draw(None, torch.zeros(2, 1, 1), None, images)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(), r'Expected size=\(H, W\) of latents in flow, both even, but got \(0, 0\)'),
        (dict(size=(7, 8)), r'but got \(7, 8\)'),
        (dict(size=(8, 8), step=3), r"got 'step'\. Did you mean 'steps'"),
        (dict(size=(8, 8), ode_steps=0), r'Expected ode_steps of at least 1 in flow but got 0'),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], message: str) -> None:
    (mistake,) = flow_mistakes(config)
    with pytest.raises(type(mistake), match=message):
        raise mistake
