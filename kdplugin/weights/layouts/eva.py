"""EVA-02 under the names of its detection form (ORION's ``img_backbone``) and under timm's.

Sources of the names: ``eva_vit.py`` of EVA-02's detection code; timm ``models/eva.py``, whose base and large EVA-02
have q, k and v apart and a norm inside the MLP. timm's tiny and small have neither, and are another function.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError

TIMM_BLOCK = {
    'attn.q_bias': 'attn.q_proj.bias',
    'attn.v_bias': 'attn.v_proj.bias',
    'mlp.w1.weight': 'mlp.fc1_g.weight',
    'mlp.w1.bias': 'mlp.fc1_g.bias',
    'mlp.w2.weight': 'mlp.fc1_x.weight',
    'mlp.w2.bias': 'mlp.fc1_x.bias',
    'mlp.ffn_ln.weight': 'mlp.norm.weight',
    'mlp.ffn_ln.bias': 'mlp.norm.bias',
    'mlp.w3.weight': 'mlp.fc2.weight',
    'mlp.w3.bias': 'mlp.fc2.bias',
    **{name: name for name in (
        *(f'{norm}.{part}' for norm in ('norm1', 'norm2') for part in ('weight', 'bias')),
        *(f'attn.{part}_proj.weight' for part in 'qkv'), 'attn.proj.weight', 'attn.proj.bias')},
}  # fmt: skip
"""Detection form -> timm, inside a block."""
ORION_BLOCK = {new: old for old, new in TIMM_BLOCK.items()}
OUTSIDE = ('pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias')
"""Outside of blocks both have the same names."""
ROTARY = re.compile(r'(?:rope_win|rope_glb|blocks\.\d+\.attn\.rope)\.freqs_(?:cos|sin)')
"""Tables of the detection form that timm computes."""
TIMM_ONLY = re.compile(r'cls_token|(?:norm|fc_norm|head)\.(?:weight|bias)|rope\..+')
"""Tensors of timm that the detection form has not."""


def to_timm(name: str) -> str:
    """Return timm's name of a tensor of the detection form.

    Raises:
        CheckpointError: timm has no such tensor.

    Example:
        >>> to_timm('blocks.3.attn.q_bias'), to_orion('blocks.3.mlp.fc1_g.weight')
        ('blocks.3.attn.q_proj.bias', 'blocks.3.mlp.w1.weight')
    """
    return _renamed(name, TIMM_BLOCK, "EVA-02's detection form that timm has too")


def to_orion(name: str) -> str:
    """Return the detection form's name of a tensor that timm calls ``name``."""
    return _renamed(name, ORION_BLOCK, "timm's EVA-02 base or large that the detection form has too")


def _renamed(name: str, table: Mapping[str, str], what: str) -> str:
    if name in OUTSIDE:
        return name
    found = re.fullmatch(r'(blocks\.\d+\.)(.+)', name)
    if not found or found[2] not in table:
        raise CheckpointError(f'Expected a tensor of {what} but got {name!r}. Give the backbone without its prefix.')
    return found[1] + table[found[2]]


def timm_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the detection form's tensors as those of timm's ``Eva`` with ``class_token=False``; values stay.

    The position of the class token and the rotary tables have no place there. The detection form has no final norm:
    with ``use_fc_norm=False, use_post_transformer_norm=False`` timm's model has none either, and loads them strictly.

    Args:
        weights: by the names of the detection form, without a prefix.
    """
    renamed = {to_timm(name): value for name, value in weights.items() if not ROTARY.fullmatch(name)}
    return {**renamed, 'pos_embed': grid_rows(weights['pos_embed'])}


def orion_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of timm's EVA-02 base or large as those of the detection form, without rotary tables.

    ``EVAViT`` computes the tables when it loads. Class token, final norm and classifier are left out; a table of
    positions without one for the class token gets a row of zeros in front, which nothing reads.

    Args:
        weights: by timm's names.

    Raises:
        CheckpointError: timm's model is of another form.
    """
    renamed = {to_orion(name): value for name, value in weights.items() if not TIMM_ONLY.fullmatch(name)}
    positions = weights['pos_embed']
    if 'cls_token' not in weights:
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return {**renamed, 'pos_embed': positions}


def grid_rows(positions: Tensor) -> Tensor:
    """Return the positions [1, P, C] of a square grid, without that of a class token in front.

    Raises:
        CheckpointError: P is neither a square nor one more.
    """
    count = positions.shape[1]
    if math.isqrt(count) ** 2 == count:
        return positions
    if math.isqrt(count - 1) ** 2 != count - 1:
        raise CheckpointError(
            f'Expected positions of a square grid, with or without a class token, but got {count}. '
            'Give the table as it was pretrained.'
        )
    return positions[:, 1:]
