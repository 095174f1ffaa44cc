"""Flow matching: straight paths are followed exactly, each image on its own, with diffusers' noise levels."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from kdplugin.errors import ConfigError
from kdplugin.models.generators.flow import FlowSchedule, add_noise, euler, flow_schedule, guided, sample


def wan_scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(prediction_type='flow_prediction', use_flow_sigmas=True, flow_shift=3.0)


@pytest.mark.parametrize('scheduler', [wan_scheduler(), FlowMatchEulerDiscreteScheduler(shift=3.0)])
def test_levels_fall_from_noise_to_image(scheduler: object) -> None:
    schedule = flow_schedule(scheduler, 10)
    assert schedule.steps == 10
    assert schedule.sigmas.shape == (11,)
    assert (schedule.sigmas.diff() < 0).all()
    assert schedule.sigmas[0] > 0.99
    assert schedule.sigmas[-1] == 0
    torch.testing.assert_close(schedule.timesteps, 1000 * schedule.sigmas[:-1], rtol=0, atol=1.0)


def test_euler_is_that_of_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    schedule = flow_schedule(scheduler, 6)
    torch.manual_seed(0)
    noise = torch.randn(2, 4, 4, 4)

    def velocity(latents: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return torch.sin(latents) + timesteps.reshape(-1, 1, 1, 1) / 1000

    expected = noise
    for timestep in scheduler.timesteps:
        expected = scheduler.step(velocity(expected, timestep.expand(2)), timestep, expected, return_dict=False)[0]
    torch.testing.assert_close(euler(velocity, noise, schedule.sigmas, schedule.timesteps), expected)


@pytest.mark.parametrize('steps', [1, 7])
def test_straight_paths_end_at_the_image_whatever_the_steps(steps: int) -> None:
    torch.manual_seed(0)
    images, noise = torch.randn(2, 3, 4, 5, 5)
    sigmas = torch.linspace(1, 0, steps + 1)
    found = euler(lambda latents, timesteps: noise - images, noise, sigmas, 1000 * sigmas[:-1])
    torch.testing.assert_close(found, images, rtol=1e-4, atol=1e-5)


def test_each_image_walks_its_own_path() -> None:
    torch.manual_seed(0)
    images, noise = torch.randn(2, 2, 4, 5, 5)
    sigmas = torch.tensor([[1.0, 1.0], [0.7, 1.0], [0.5, 1.0]])
    found = euler(lambda latents, timesteps: noise - images, noise, sigmas, 1000 * sigmas[:-1])
    torch.testing.assert_close(found, add_noise(images, noise, torch.tensor([0.5, 1.0])))
    assert torch.equal(found[1], noise[1])


def test_guidance_1_is_none_and_0_forgets_the_prompt() -> None:
    conditional, unconditional = torch.randn(2, 3)
    torch.testing.assert_close(guided(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guided(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(guided(conditional, unconditional, 3.0) - conditional, 2 * (conditional - unconditional))


def test_samples_are_guided_by_the_empty_prompt() -> None:
    schedule = FlowSchedule(torch.tensor([1.0, 0.0]), torch.tensor([1000.0]))

    def model(
        latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, return_dict: bool
    ) -> tuple[torch.Tensor]:
        return (text.mean((1, 2)).reshape(-1, 1, 1, 1).expand_as(latents),)

    noise, text, empty = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 1), torch.full((1, 1, 1), 0.5)
    assert torch.equal(sample(model, schedule, noise, text), torch.full_like(noise, -1.0))
    assert torch.equal(
        sample(model, schedule, noise, text, empty_text=empty, guidance=4.0), torch.full_like(noise, -2.5)
    )
    with pytest.raises(ConfigError, match=r'Expected the empty prompt for guidance 2.0 but got none'):
        sample(model, schedule, noise, text, guidance=2.0)


@pytest.mark.parametrize(
    ('scheduler', 'steps'), [(DDIMScheduler(), 4), (UniPCMultistepScheduler(), 4), (wan_scheduler(), 0)]
)
def test_other_diffusions_are_refused(scheduler: object, steps: int) -> None:
    with pytest.raises(ConfigError, match=r'Expected a scheduler of flow matching and at least one step but got'):
        flow_schedule(scheduler, steps)
