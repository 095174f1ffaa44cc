"""A tiny Wan pipeline with random experts, and students and batches that suit it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip('diffusers')
pytest.importorskip('transformers')

from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from kdplugin.datasets.prompts import read_prompts
from kdplugin.models.generators import WanLiteStudent
from kdplugin.models.generators.tiny_pipeline import TOKENS, make_tiny_pipeline

torch.set_num_threads(1)

PROMPTS = read_prompts()
TEACHER = dict(
    num_attention_heads=2, attention_head_dim=12, ffn_dim=40, num_layers=3, text_dim=10, freq_dim=16, in_channels=4,
    out_channels=4,
)  # fmt: skip
"""A transformer for tests that need no pipeline."""


def stir(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight, gains and biases too, so that none is 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


def video_model(seed: int = 0, **changes: Any) -> WanTransformer3DModel:
    """Return a random transformer of diffusers."""
    torch.manual_seed(seed)
    return stir(WanTransformer3DModel(**{**TEACHER, **changes}), seed)


def expert_of(folder: Path) -> WanTransformer3DModel:
    """Return a saved expert as diffusers has it; its own from_pretrained needs accelerate."""
    model = WanTransformer3DModel.from_config(WanTransformer3DModel.load_config(folder))
    model.load_state_dict(load_file(folder / 'diffusion_pytorch_model.safetensors'), strict=True)
    return model.eval()


def same_size_student(**changes: Any) -> WanLiteStudent:
    """Return a student with the sizes of ``video_model``."""
    sizes = dict(hidden_size=24, depth=3, num_heads=2, ffn_size=40, text_dim=10, freq_dim=16, in_channels=4)
    torch.manual_seed(7)
    return WanLiteStudent(**{**sizes, **changes}).eval()


def asked(seed: int = 3, count: int = 2, size: tuple[int, int] = (8, 12), tokens: int = 5) -> tuple[Tensor, ...]:
    """Return latents, timesteps and text for ``video_model`` and its students."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 4, *size, generator=generator)
    timesteps = torch.linspace(900, 100, count)
    return latents, timesteps, torch.randn(count, tokens, 10, generator=generator)


@pytest.fixture(scope='session')
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny pipeline, its experts random."""
    return make_tiny_pipeline(tmp_path_factory.getbasetemp() / 'wan', prompts=PROMPTS[:8], steps=0)


def distilled(pipeline: Path, folder: Path, **more: Any) -> dict[str, Any]:
    """Return the config of a student half as wide and deep as the tiny pipeline's experts."""
    student = dict(
        type='kdplugin.WanLiteStudent', hidden_size=64, depth=2, num_heads=2, ffn_size=128, text_dim=32, freq_dim=32,
    )  # fmt: skip
    config = dict(
        type='kdplugin.DiffusionDistiller',
        student=student,
        teacher=dict(path=str(pipeline), dtype='float32'),
        text_encoder=dict(cache=str(folder / 'text'), max_length=TOKENS, dtype='float32'),
        flow=dict(size=(8, 8), steps=8, ode_steps=2),
        pairs=dict(block=dict(student_tap='blocks.1', teacher_tap='blocks.3', loss=dict(type='kdplugin.L2Loss'))),
    )
    return {**config, **more}
