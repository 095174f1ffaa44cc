"""Layouts of large networks as tensors on the meta device: names, shapes and order, without values or memory.

For plans that are made without the model at hand, and for tests and benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Layout = dict[str, Tensor]


def _empty(shapes: Mapping[str, tuple[int, ...]]) -> Layout:
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def _linear(path: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    return {f'{path}.weight': (outputs, *inputs), f'{path}.bias': (outputs,)}


def _norm(path: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f'{path}.weight': (width,), f'{path}.bias': (width,)}


def wan_layout(
    dim: int = 5120, ffn: int = 13824, layers: int = 40, *, channels: int = 16, text: int = 4096, frequencies: int = 256
) -> Layout:
    """Return the transformer of Wan 2.1 and 2.2 under diffusers' names; the defaults are one expert of T2V-A14B.

    1,095 tensors of 14,288,491,584 parameters by default; 1.3B has dim 1536, ffn 8960, 30 layers.
    """
    shapes: dict[str, tuple[int, ...]] = {
        'scale_shift_table': (1, 2, dim),
        **_linear('patch_embedding', dim, channels, 1, 2, 2),
        **_linear('condition_embedder.time_embedder.linear_1', dim, frequencies),
        **_linear('condition_embedder.time_embedder.linear_2', dim, dim),
        **_linear('condition_embedder.time_proj', 6 * dim, dim),
        **_linear('condition_embedder.text_embedder.linear_1', dim, text),
        **_linear('condition_embedder.text_embedder.linear_2', dim, dim),
    }
    for number in range(layers):
        block = f'blocks.{number}'
        shapes[f'{block}.scale_shift_table'] = (1, 6, dim)
        for attention in ('attn1', 'attn2'):
            for part in ('to_q', 'to_k', 'to_v', 'to_out.0'):
                shapes |= _linear(f'{block}.{attention}.{part}', dim, dim)
            shapes |= {f'{block}.{attention}.norm_{part}.weight': (dim,) for part in 'qk'}
        shapes |= _norm(f'{block}.norm2', dim)
        shapes |= _linear(f'{block}.ffn.net.0.proj', ffn, dim) | _linear(f'{block}.ffn.net.2', dim, ffn)
    return _empty(shapes | _linear('proj_out', 4 * channels, dim))


def wan_lite_layout(hidden: int = 1024, depth: int = 16, *, channels: int = 4, text: int = 4096) -> Layout:
    """Return WanLiteStudent, an image model: 202 tensors of 214,203,396 parameters by default."""
    shapes: dict[str, tuple[int, ...]] = {
        **_linear('text_proj', hidden, text),
        **_linear('time_embed.0', 4 * hidden, hidden),
        **_linear('time_embed.2', hidden, 4 * hidden),
        **_linear('conv_in', hidden, channels, 3, 3),
        **_linear('conv_out', channels, hidden, 3, 3),
    }
    for number in range(depth):
        block = f'blocks.{number}'
        shapes |= _norm(f'{block}.norm1', hidden)
        shapes |= {f'{block}.attn.in_proj_weight': (3 * hidden, hidden), f'{block}.attn.in_proj_bias': (3 * hidden,)}
        shapes |= _linear(f'{block}.attn.out_proj', hidden, hidden) | _norm(f'{block}.norm2', hidden)
        shapes |= _linear(f'{block}.mlp.0', 4 * hidden, hidden) | _linear(f'{block}.mlp.2', hidden, 4 * hidden)
    return _empty(shapes)


def eva_vit_layout(
    dim: int = 1024, depth: int = 24, heads: int = 16, *, image: int = 640, patch: int = 16, window: int = 16
) -> Layout:
    """Return ORION's EVA-ViT (EVA-02 large in its detection form) without the prefix 'img_backbone.'.

    511 tensors of 303,388,608 parameters by default, rotary tables not counted. Every third block is global.
    """
    hidden, head = int(dim * 8 / 3), dim // heads
    rotary = {'win': (window**2, head), 'glb': ((image // patch) ** 2, head)}
    shapes: dict[str, tuple[int, ...]] = {
        'pos_embed': (1, 197, dim),
        **_linear('patch_embed.proj', dim, 3, patch, patch),
    }
    shapes |= {f'rope_{kind}.freqs_{part}': rotary[kind] for kind in rotary for part in ('cos', 'sin')}
    for number in range(depth):
        block, kind = f'blocks.{number}', 'glb' if number % 3 == 2 else 'win'
        shapes |= _norm(f'{block}.norm1', dim) | {f'{block}.attn.{part}_bias': (dim,) for part in 'qv'}
        shapes |= {f'{block}.attn.{part}_proj.weight': (dim, dim) for part in 'qkv'}
        shapes |= {f'{block}.attn.rope.freqs_{part}': rotary[kind] for part in ('cos', 'sin')}
        shapes |= _linear(f'{block}.attn.proj', dim, dim) | _norm(f'{block}.norm2', dim)
        shapes |= _linear(f'{block}.mlp.w1', hidden, dim) | _linear(f'{block}.mlp.w2', hidden, dim)
        shapes |= _norm(f'{block}.mlp.ffn_ln', hidden) | _linear(f'{block}.mlp.w3', dim, hidden)
    return _empty(shapes)
