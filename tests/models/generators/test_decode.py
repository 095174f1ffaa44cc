"""Pictures of latents: through the VAE as diffusers' pipeline decodes, as a preview, and side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdplugin.errors import CheckpointError
from kdplugin.models.generators.decode import decode, encode, grid_image, open_vae, preview, save_pictures
from kdplugin.models.generators.tiny_pipeline import tiny_vae


def test_pictures_are_those_of_the_pipeline(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny_vae().save_pretrained(tmp_path / 'vae')
    vae = open_vae(tmp_path)
    latents = torch.randn(2, 16, 3, 4)
    pictures = decode(vae, latents)
    assert pictures.shape == (2, 3, 24, 32)
    mean = torch.tensor(vae.config.latents_mean).view(1, 16, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std).view(1, 16, 1, 1, 1)
    expected = vae.decode(latents[:, :, None] / (1 / deviation) + mean).sample[:, :, 0]
    torch.testing.assert_close(pictures, (expected / 2 + 0.5).clamp(0, 1), rtol=1e-4, atol=1e-5)
    assert torch.equal(open_vae(tmp_path / 'vae').decoder.conv_in.weight, vae.decoder.conv_in.weight)


def test_encoded_pictures_are_normalised_latents() -> None:
    torch.manual_seed(0)
    vae = tiny_vae()
    latents = encode(vae, torch.rand(1, 3, 16, 24))
    assert latents.shape == (1, 16, 2, 3)
    assert latents.isfinite().all()


def test_a_folder_without_a_vae_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'Expected the VAE of Wan in .* but got'):
        open_vae(tmp_path)


def test_a_preview_shows_where_something_is() -> None:
    latents = torch.zeros(1, 16, 4, 4)
    latents[:, :6, 1, 2] = 2.0
    shown = preview(latents)
    assert shown.shape == (1, 3, 32, 32)
    assert (shown[0, 0, 8:16, 16:24] == 1.0).all()
    assert (shown[0, 0] == 0.5).sum() == 32 * 32 - 64
    assert (shown[0, 1:] == 0.5).all()


def test_pictures_lie_side_by_side() -> None:
    pictures = torch.stack([torch.full((3, 4, 6), value) for value in (0.0, 0.2, 0.4)])
    found = np.asarray(grid_image(pictures, columns=2, gap=1))
    assert found.shape == (9, 13, 3)
    assert (found[:4, :6] == 0).all()
    assert (found[:4, 7:] == 51).all()
    assert (found[5:, :6] == 102).all()
    assert (found[4] == 255).all()


def test_each_picture_gets_a_file(tmp_path: Path) -> None:
    paths = save_pictures(torch.rand(2, 3, 5, 4), ['a', 'b'], tmp_path / 'out')
    assert [path.name for path in paths] == ['a.png', 'b.png']
    assert Image.open(paths[1]).size == (4, 5)
