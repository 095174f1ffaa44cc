"""A checkpoint in the layout of ``Orion.pth`` with invented weights, for tests and for looking at a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdplugin.models.backbones.eva_vit import EVAViT
from kdplugin.weights.reading.io import write_checkpoint

OTHERS: dict[str, tuple[int, ...]] = {
    'pts_bbox_head.transformer.decoder.layers.0.norms.0.weight': (256,),
    'pts_bbox_head.reference_points.weight': (600, 3),
    'map_head.reference_points.weight': (100, 3),
    'lm_head.base_model.model.lm_head.lora_A.default.weight': (16, 64),
    'query_pos.0.weight': (64, 96),
    'time_embedding.0.weight': (64, 64),
    'ego_pose_pe.reduce.0.weight': (64, 45),
    'position_encoder.0.weight': (64, 48),
}
"""A tensor or two of ORION's other parts; in the real file they are thousands."""


def orion_state(seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    """Return invented weights under the names of ``Orion.pth``: all of ``img_backbone.*``, and something of the others.

    Args:
        seed: of the weights; torch's generator is left as it was.
        settings: of ``EVAViT``; ORION's own by default: 511 tensors, 1.2 GB.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = EVAViT(**settings)
        others = {name: torch.randn(shape) for name, shape in OTHERS.items()}
    return {**{f'img_backbone.{name}': value for name, value in backbone.state_dict().items()}, **others}


def write_orion_checkpoint(path: str | Path, seed: int = 0, **settings: Any) -> str:
    """Write ``orion_state`` as mmcv 1.x does, ``meta`` and ``state_dict``; return what was written, in words."""
    state = orion_state(seed, **settings)
    write_checkpoint({'meta': {'epoch': 0, 'iter': 0}, 'state_dict': state}, path)
    own = [name for name in state if name.startswith('img_backbone.')]
    return f'{path}: {len(own)} tensors of img_backbone and {len(state) - len(own)} of other parts, invented weights'
