"""The embedded pipeline: the same again, one that diffusers opens, and experts that know their pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from wan_fixtures import PROMPTS, TOKENS, pipeline

from kdplugin.models.generators.tiny_pipeline import make_tiny_pipeline, toy_latents
from kdplugin.weights.reading.io import hash_file

__all__ = ['pipeline']


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob('*.safetensors'))}


def test_the_same_arguments_give_the_same_files(pipeline: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    again = make_tiny_pipeline(tmp_path / 'again', prompts=PROMPTS[:8], steps=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert hashes(again) == hashes(pipeline)
    assert len(set(hashes(again).values())) == 3
    other = make_tiny_pipeline(tmp_path / 'other', prompts=PROMPTS[:8], steps=0, seed=1)
    assert not set(hashes(other).values()) & set(hashes(pipeline).values())


def test_what_is_there_is_not_made_again(pipeline: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in pipeline.rglob('*')}
    make_tiny_pipeline(pipeline, prompts=PROMPTS[:8], steps=0)
    assert {path: path.stat().st_mtime_ns for path in pipeline.rglob('*')} == before


def test_it_learns_the_pictures_of_its_prompts(tmp_path: Path) -> None:
    from kdplugin.distill.diffusion.wan_teacher import WanTeacher
    from kdplugin.models.generators.flow import add_noise
    from kdplugin.models.generators.text_encoder import TextEncoder

    errors = []
    for steps in (0, 20):
        folder = make_tiny_pipeline(tmp_path / str(steps), prompts=PROMPTS[:4], steps=steps)
        tokens = TextEncoder(folder, max_length=TOKENS, dtype='float32')(PROMPTS[:4])
        text = torch.stack([torch.nn.functional.pad(one, (0, 0, 0, TOKENS - len(one))) for one in tokens])
        torch.manual_seed(1)
        images = toy_latents(PROMPTS[:4])
        noise = torch.randn(images.shape)
        teacher = WanTeacher(folder, 'float32')
        for sigma in (0.95, 0.4):
            noisy = add_noise(images, noise, torch.full((4,), sigma))
            velocity, _ = teacher.outputs(noisy, torch.full((4,), 1000 * sigma), text)
            errors.append(float((velocity - (noise - images)).square().mean()))
    assert errors[2] < 0.85 * errors[0]
    assert errors[3] < 0.85 * errors[1]


def test_pictures_differ_by_prompt_alone() -> None:
    first, second, again = toy_latents(['a', 'b', 'a'])
    assert torch.equal(first, again)
    assert (first - second).abs().mean() > 0.1
    assert first.shape == (16, 8, 8)
    assert toy_latents(['a'], side=4).shape == (1, 16, 4, 4)


@pytest.mark.parametrize('part', ['transformer', 'transformer_2', 'scheduler', 'text_encoder', 'tokenizer'])
def test_every_part_is_there(pipeline: Path, part: str) -> None:
    assert any((pipeline / part).iterdir())
