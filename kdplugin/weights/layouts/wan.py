"""Wan's transformer under its two sets of names, and as a network without modulation.

Source of the names: diffusers ``WanTransformer3DModel`` and its conversion script; Wan's own ``wan/modules/model.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.tensor_source import RenamedSource, TensorSource
from kdplugin.weights.steps import computable

NATIVE = {
    'patch_embedding': 'patch_embedding',
    'time_embedding.0': 'condition_embedder.time_embedder.linear_1',
    'time_embedding.2': 'condition_embedder.time_embedder.linear_2',
    'time_projection.1': 'condition_embedder.time_proj',
    'text_embedding.0': 'condition_embedder.text_embedder.linear_1',
    'text_embedding.2': 'condition_embedder.text_embedder.linear_2',
    'head.modulation': 'scale_shift_table',
    'head.head': 'proj_out',
}
"""Wan's own module -> diffusers' module, outside of blocks."""
NATIVE_BLOCK = {
    'modulation': 'scale_shift_table',
    'norm3': 'norm2',
    **{f'{old}.{part}': f'{new}.to_{part}' for old, new in (('self_attn', 'attn1'), ('cross_attn', 'attn2'))
       for part in 'qkv'},
    **{f'{old}.o': f'{new}.to_out.0' for old, new in (('self_attn', 'attn1'), ('cross_attn', 'attn2'))},
    **{f'{old}.norm_{part}': f'{new}.norm_{part}' for old, new in (('self_attn', 'attn1'), ('cross_attn', 'attn2'))
       for part in 'qk'},
    'ffn.0': 'ffn.net.0.proj',
    'ffn.2': 'ffn.net.2',
}  # fmt: skip
"""The same inside a block. The norm of cross-attention is norm3 there and norm2 here."""
DIFFUSERS, DIFFUSERS_BLOCK = ({new: old for old, new in table.items()} for table in (NATIVE, NATIVE_BLOCK))

PARTS = ('norm1.bias', 'norm1.weight', 'gate1', 'norm3.bias', 'norm3.weight', 'gate2')
"""What the six rows of a block's modulation are in a network without it: shift, 1 + scale and gate, twice."""


def to_diffusers(name: str) -> str:
    """Return diffusers' name of a tensor that Wan's own code calls ``name``.

    Raises:
        CheckpointError: Wan's text-to-video transformer has no such tensor.

    Example:
        >>> to_diffusers('blocks.3.norm3.weight'), to_native('blocks.3.norm2.weight')
        ('blocks.3.norm2.weight', 'blocks.3.norm3.weight')
    """
    return _renamed(name, NATIVE, NATIVE_BLOCK)


def to_native(name: str) -> str:
    """Return the name in Wan's own code of a tensor that diffusers calls ``name``."""
    return _renamed(name, DIFFUSERS, DIFFUSERS_BLOCK)


def _renamed(name: str, outside: dict[str, str], inside: dict[str, str]) -> str:
    found = re.fullmatch(r'(blocks\.\d+\.)?(.+?)(\.(?:weight|bias))?', name)
    prefix, module, leaf = (found[1] or '', found[2], found[3] or '') if found else ('', name, '')
    table = inside if prefix else outside
    if module not in table:
        raise CheckpointError(
            f"Expected a tensor of Wan's text-to-video transformer but got {name!r}. Give that part of the checkpoint."
        )
    return f'{prefix}{table[module]}{leaf}'


def diffusers_names(source: TensorSource) -> TensorSource:
    """Return a source of Wan's transformer under diffusers' names, whichever it has."""
    if 'condition_embedder.time_proj.weight' in source:
        return source
    return RenamedSource(source, {to_diffusers(name): name for name in source})


class StaticWan(TensorSource):
    """Wan's transformer with its modulation held at its mean over the timesteps, as norms and gates with own values.

    A block computes x + gate1 * attention(norm1(x)), with norm1 = LayerNorm times (1 + scale) plus shift. Shift,
    scale and gate are sums of the block's table and of a projection of the timestep; here their mean over timesteps
    stands as ``blocks.N.norm1.{weight,bias}``, ``blocks.N.gate1``, ``blocks.N.norm3.{weight,bias}`` and
    ``blocks.N.gate2``, beside all tensors under diffusers' names. Exact for a modulation that does not depend on time.

    Args:
        source: with either set of names.
        timesteps: first and last of those averaged over; an expert of Wan 2.2 sees a part of 0 to 1000.
        samples: how many evenly spaced ones.
    """

    def __init__(self, source: TensorSource, timesteps: Sequence[float] = (0.0, 1000.0), samples: int = 33) -> None:
        super().__init__(source.name)
        self._base = diffusers_names(source)
        self._timesteps = torch.linspace(timesteps[0], timesteps[1], samples)
        width = self._base.shape('scale_shift_table')[-1]
        blocks = [
            name.rpartition('.')[0] for name in self._base if re.fullmatch(r'blocks\.\d+\.scale_shift_table', name)
        ]
        self._own = {f'{block}.{part}': (block, row) for block in blocks for row, part in enumerate(PARTS)}
        self._width = width

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._own:
            return self._base[key]
        block, row = self._own[key]
        table = self._base[f'{block}.scale_shift_table']
        if table.is_meta:
            return torch.empty(self._width, device='meta')
        return computable(table)[0, row] + self._projected[row] + (1.0 if PARTS[row].endswith('weight') else 0.0)

    @cached_property
    def _projected(self) -> Tensor:
        """Return the mean projection of the timesteps [6, D]; linear, so that of the mean embedding."""
        embedder = 'condition_embedder.time_embedder.linear'
        first, second = (
            [computable(self._base[f'{embedder}_{i}.{part}']) for part in ('weight', 'bias')] for i in (1, 2)
        )
        waves = sinusoid(self._timesteps, first[0].shape[1])
        mean = F.silu(F.linear(F.silu(F.linear(waves, *first)), *second)).mean(0)
        weight = self._base['condition_embedder.time_proj.weight']
        rows = [computable(chunk) @ mean for chunk in weight.chunk(6)]
        return torch.stack(rows) + computable(self._base['condition_embedder.time_proj.bias']).reshape(6, -1)

    def __iter__(self) -> Iterator[str]:
        yield from self._base
        yield from self._own

    def __len__(self) -> int:
        return len(self._base) + len(self._own)

    def __contains__(self, key: object) -> bool:
        return key in self._own or key in self._base

    def shape(self, key: str) -> tuple[int, ...]:
        return (self._width,) if key in self._own else self._base.shape(key)

    def dtype(self, key: str) -> torch.dtype:
        return torch.float32 if key in self._own else self._base.dtype(key)


def sinusoid(timesteps: Tensor, width: int) -> Tensor:
    """Return the embedding of timesteps [T, width]: cosines, then sines, of frequencies 10000^(-2i / width)."""
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(width // 2) / (width // 2))
    angles = timesteps[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)


def block_count(names: Iterable[str]) -> int:
    """Return the number of blocks among names."""
    return 1 + max((int(name.split('.')[1]) for name in names if re.match(r'blocks\.\d+\.', name)), default=-1)
