"""From latents to pictures: through Wan's VAE, or without it as a preview.

N image, C channel of the VAE, H W latent pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kdplugin.errors import CheckpointError

PREVIEW = 8
"""Picture pixels for each latent pixel, as the VAE of Wan has them."""


def open_vae(folder: str | Path) -> Any:
    """Return Wan's VAE in eval mode, from its folder or that of a pipeline.

    Raises:
        CheckpointError: there is none.
    """
    from diffusers import AutoencoderKLWan

    root = Path(folder)
    place = root / 'vae' if (root / 'vae').is_dir() else root
    try:
        vae = AutoencoderKLWan.from_pretrained(place, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f'Expected the VAE of Wan in {place} but got {type(error).__name__}: {str(error).splitlines()[0]}. Give '
            'the folder with its config.json and weights.'
        ) from error
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> Tensor:
    """Return pictures (N, 3, 8 H, 8 W) from 0 to 1; latents are normalised by the VAE's mean and deviation."""
    frames = latents[:, :, None].to(next(vae.parameters()).dtype)
    mean, deviation = (torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1).to(frames) for key in _STATISTICS)
    return (vae.decode(frames * deviation + mean, return_dict=False)[0][:, :, 0].float() / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def encode(vae: Any, pictures: Tensor) -> Tensor:
    """Return normalised latents (N, C, H, W) of pictures (N, 3, 8 H, 8 W) from 0 to 1, without their noise."""
    frames = (pictures * 2 - 1)[:, :, None].to(next(vae.parameters()).dtype)
    mean, deviation = (torch.tensor(vae.config[key]).view(1, -1, 1, 1, 1).to(frames) for key in _STATISTICS)
    return ((vae.encode(frames).latent_dist.mode() - mean) / deviation)[:, :, 0].float()


_STATISTICS = ('latents_mean', 'latents_std')


def preview(latents: Tensor) -> Tensor:
    """Return pictures (N, 3, 8 H, 8 W) that show where something is, not its colours: the means of three parts of C."""
    parts = torch.stack([part.mean(1) for part in latents.float().tensor_split(3, dim=1)], 1)
    return F.interpolate((parts / 4 + 0.5).clamp(0, 1), scale_factor=PREVIEW, mode='nearest')


def grid_image(pictures: Tensor, columns: int | None = None, gap: int = 2) -> Image.Image:
    """Return pictures (N, 3, H, W) from 0 to 1 side by side on white.

    Args:
        columns: of the grid, about the root of N by default.
        gap: white pixels between pictures.
    """
    count, _, height, width = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate((pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return Image.fromarray(canvas)


def save_pictures(pictures: Tensor, names: Sequence[str], folder: str | Path) -> list[Path]:
    """Write one PNG for each picture (N, 3, H, W) from 0 to 1; return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'{name}.png' for name in names]
    for picture, path in zip(pictures, paths, strict=True):
        grid_image(picture[None]).save(path)
    return paths
