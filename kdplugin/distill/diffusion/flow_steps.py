"""Where a training step asks: noisy latents and their noise level, from images or from the teacher's own path.

N image, C channel, H W latent pixel, S noise level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.errors import ConfigError, DataError
from kdplugin.models.generators.flow import FlowSchedule, add_noise, euler
from kdplugin.module_paths import did_you_mean

FLOW_KEYS = ('size', 'steps', 'ode_steps')


@dataclass(frozen=True)
class Question:
    """What teacher and student are asked.

    Args:
        latents: noisy (N, C, H, W).
        timesteps: (N,).
    """

    latents: Tensor
    timesteps: Tensor


@dataclass(frozen=True)
class FlowSteps:
    """Draws the questions of a step.

    Noise levels are those that the teacher's scheduler visits, each equally likely. With images their latents are
    noised; without, the teacher walks from pure noise to the level in at most ``ode_steps`` Euler steps.

    Args:
        schedule: the noise levels.
        channels: C.
        size: (H, W) where there are no images.
        ode_steps: of the teacher, for each batch without images.
    """

    schedule: FlowSchedule
    channels: int
    size: tuple[int, int]
    ode_steps: int

    @torch.no_grad()
    def draw(
        self,
        teacher: WanTeacher,
        text: Tensor,
        empty: Tensor | None = None,
        latents: Sequence[Tensor] | Tensor | None = None,
    ) -> Question:
        """Return a question for each row of ``text``; random numbers are the CPU's, so that a resume repeats them.

        Args:
            teacher: walks where there are no images.
            text: (N, M, D).
            empty: (1, M, D), for guidance.
            latents: of images, (N, C, H, W) or a list of (C, H, W).

        Raises:
            DataError: latents of different sizes or other channels.
        """
        index = torch.randint(self.schedule.steps, (len(text),))
        sigma, timesteps = self.schedule.sigmas[index], self.schedule.timesteps[index].to(text.device)
        if latents is not None:
            images = _stacked(latents, self.channels).to(text.device)
            return Question(add_noise(images, torch.randn(images.shape).to(text.device), sigma), timesteps)
        noise = torch.randn(len(text), self.channels, *self.size).to(text.device)
        return Question(self._walk(teacher, noise, index, text, empty), timesteps)

    def _walk(self, teacher: WanTeacher, noise: Tensor, index: Tensor, text: Tensor, empty: Tensor | None) -> Tensor:
        count = min(self.ode_steps, int(index.max()))
        shares = torch.linspace(0, 1, count + 1)[:, None] if count else torch.zeros(1, 1)
        path = (shares * index).round().long()
        return euler(
            lambda latents, timesteps: teacher.outputs(latents, timesteps, text, empty)[0],
            noise, self.schedule.sigmas[path], self.schedule.timesteps[path[:-1]],
        )  # fmt: skip


def _stacked(latents: Sequence[Tensor] | Tensor, channels: int) -> Tensor:
    shapes = {tuple(image.shape) for image in latents}
    if len(shapes) > 1 or next(iter(shapes))[0] != channels:
        raise DataError(
            f'Expected image latents ({channels}, H, W) of one size in a batch but got {sorted(shapes)}. Encode images '
            "of one size with the teacher's VAE."
        )
    return latents if isinstance(latents, Tensor) else torch.stack(list(latents))


def flow_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with ``flow=dict(size=, steps=, ode_steps=)``."""
    for key in config:
        if key not in FLOW_KEYS:
            yield ConfigError(f'Expected keys {list(FLOW_KEYS)} in flow but got {key!r}.{did_you_mean(key, FLOW_KEYS)}')
    size = config.get('size', (0, 0))
    if (
        not isinstance(size, list | tuple)
        or len(size) != 2
        or any(not isinstance(side, int) or side < 2 or side % 2 for side in size)
    ):
        yield ConfigError(
            f'Expected size=(H, W) of latents in flow, both even, but got {size!r}. An image of 512 x 512 pixels '
            'is (64, 64) in the VAE of Wan.'
        )
    for key in ('steps', 'ode_steps'):
        value = config.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield ConfigError(f'Expected {key} of at least 1 in flow but got {value!r}. 50 and 4 are the defaults.')
