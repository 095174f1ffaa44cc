"""Flow matching: x = (1 - sigma) image + sigma noise, velocity v = noise - image, so that dx / dsigma = v.

N image, S step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdplugin.errors import ConfigError

Velocity = Callable[[Tensor, Tensor], Tensor]
"""From noisy latents (N, C, H, W) and timesteps (N,) to a velocity (N, C, H, W)."""


@dataclass(frozen=True)
class FlowSchedule:
    """Noise levels from noise to image.

    Args:
        sigmas: (S + 1,), falling from about 1 to 0.
        timesteps: (S,), what the network is told at each.
    """

    sigmas: Tensor
    timesteps: Tensor

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def flow_schedule(scheduler: Any, steps: int) -> FlowSchedule:
    """Return the noise levels that a diffusers scheduler visits in so many steps.

    Args:
        scheduler: ``FlowMatchEulerDiscreteScheduler``, or ``UniPCMultistepScheduler`` with ``use_flow_sigmas``.
        steps: S.

    Raises:
        ConfigError: a scheduler of another kind of diffusion, or less than one step.
    """
    name = type(scheduler).__name__
    flows = 'FlowMatch' in name or scheduler.config.get('use_flow_sigmas', False)
    if not flows or steps < 1:
        raise ConfigError(
            f'Expected a scheduler of flow matching and at least one step but got {name} and {steps}. Use the '
            "scheduler of the teacher's folder."
        )
    scheduler.set_timesteps(steps)
    return FlowSchedule(scheduler.sigmas.float().cpu(), scheduler.timesteps.float().cpu())


def add_noise(images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return (1 - sigma) images + sigma noise, with a sigma (N,) for each image."""
    sigma = sigma.to(images).reshape(-1, *[1] * (images.ndim - 1))
    return (1 - sigma) * images + sigma * noise


def euler(velocity: Velocity, latents: Tensor, sigmas: Tensor, timesteps: Tensor) -> Tensor:
    """Follow dx / dsigma = v along noise levels, with a path of its own for each image.

    Args:
        velocity: is asked once for each step.
        latents: (N, C, H, W) at the first level.
        sigmas: (S + 1,), or (S + 1, N).
        timesteps: (S,), or (S, N).
    """
    count = len(latents)
    for step, timestep in enumerate(timesteps):
        width = (sigmas[step + 1] - sigmas[step]).to(latents).expand(count).reshape(-1, *[1] * (latents.ndim - 1))
        latents = latents + width * velocity(latents, timestep.to(latents.device).expand(count))
    return latents


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Return the velocity of classifier-free guidance (Ho and Salimans, arXiv 2207.12598): u + scale (c - u)."""
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def sample(
    model: Callable[..., Any],
    schedule: FlowSchedule,
    noise: Tensor,
    text: Tensor,
    *,
    empty_text: Tensor | None = None,
    guidance: float = 1.0,
) -> Tensor:
    """Return the latents (N, C, H, W) that a network makes of noise.

    Args:
        model: called as ``WanLiteStudent`` is.
        schedule: see ``flow_schedule``.
        noise: (N, C, H, W).
        text: (N, M, D).
        empty_text: (1, M, D) or (N, M, D), of the empty prompt; needed for guidance other than 1.
        guidance: scale of classifier-free guidance; 1 is none.

    Raises:
        ConfigError: guidance without the empty prompt.
    """
    if guidance != 1 and empty_text is None:
        raise ConfigError(f'Expected the empty prompt for guidance {guidance} but got none. Encode it, or use 1.')

    def velocity(latents: Tensor, timesteps: Tensor) -> Tensor:
        found = model(latents, timesteps, text, return_dict=False)[0]
        if guidance == 1 or empty_text is None:
            return found
        nothing = empty_text.expand(len(latents), -1, -1)
        return guided(found, model(latents, timesteps, nothing, return_dict=False)[0], guidance)

    return euler(velocity, noise, schedule.sigmas, schedule.timesteps)
