"""A Wan transformer small enough for tests, with random values."""

from __future__ import annotations

import torch
from torch import Tensor

from kdplugin.weights.layouts.skeletons import wan_layout

SMALL = {'dim': 12, 'ffn': 20, 'layers': 3, 'text': 6, 'frequencies': 8}


def small_wan(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in wan_layout(**SMALL).items()}
