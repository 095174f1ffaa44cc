"""Where a vision transformer keeps its heads and neurons, in a model and in a file.

Names are those of EVA-02's detection form: blocks.N.attn.{q_proj,k_proj,v_proj,proj,q_bias,v_bias} and
blocks.N.mlp.{w1,w2,ffn_ln,w3}, behind a prefix such as 'img_backbone.'. Heads are contiguous slices of ``head_dim``
rows of q, k and v, and the same columns of proj.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean, find_module
from kdplugin.weights.reading.tensor_source import TensorSource

HEADS, NEURONS = UNITS = ('heads', 'neurons')
"""What can be pruned."""

PARTS = ('attn.q_proj', 'attn.k_proj', 'attn.v_proj', 'attn.proj', 'mlp.w1', 'mlp.w2', 'mlp.ffn_ln', 'mlp.w3')
"""Modules of a block that can be pruned."""

ANCHOR = re.compile(r'(?P<prefix>(?:.*\.)?)blocks\.(?P<block>\d+)\.attn\.q_proj\.weight')


@dataclass(frozen=True)
class Sizes:
    """How many units a backbone has.

    Args:
        prefix: what the names of its tensors begin with: 'img_backbone.', or ''.
        depth: blocks.
        num_heads: heads of each block.
        head_dim: width of a head.
        hidden: neurons of each block's FFN.
    """

    prefix: str
    depth: int
    num_heads: int
    head_dim: int
    hidden: int

    def units(self, unit: str) -> int:
        """Return how many heads or neurons a block has.

        Raises:
            ConfigError: the unit is neither.
        """
        if unit not in UNITS:
            raise ConfigError(f'Expected a unit of {" or ".join(UNITS)} but got {unit!r}. Choose one of them.')
        return self.num_heads if unit == HEADS else self.hidden


def prefix_of(names: Iterable[str], wanted: str | None = None, where: str = 'the checkpoint') -> str:
    """Return what the names of the backbone begin with.

    Args:
        wanted: the prefix if several fit; another one is taken where it is the only one, because tools cut it off.
        where: what messages call the names.

    Raises:
        CheckpointError: there are no such blocks, or those of several models.

    Example:
        >>> prefix_of(['neck.0.weight', 'backbone.blocks.0.attn.q_proj.weight'], 'img_backbone.')
        'backbone.'
    """
    names = list(names)
    found = list(dict.fromkeys(match['prefix'] for name in names if (match := ANCHOR.fullmatch(name))))
    if wanted in found:
        return str(wanted)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            f'Expected blocks.N.attn.q_proj.weight among the {len(names)} tensors of {where} but got none.'
            f'{did_you_mean("blocks.0.attn.q_proj.weight", names)} Give a model of the EVA-02 layout, with split q, k '
            'and v.'
        )
    raise CheckpointError(f'Expected one backbone in {where} but got {", ".join(map(repr, found))}. Name its prefix.')


def sizes_of(
    tensors: Mapping[str, Any],
    *,
    prefix: str | None = None,
    num_heads: int | None = None,
    head_dim: int | None = None,
    where: str = 'the checkpoint',
) -> Sizes:
    """Return the sizes of the backbone in a state dict or source, by the shapes of its tensors.

    The width of a head is that of its rotary table, where the file has one and nothing is given.

    Args:
        prefix: see ``prefix_of``.
        num_heads, head_dim: one of them, where there are no rotary tables.

    Raises:
        CheckpointError: blocks differ in their sizes, as those of a model do that was pruned before.
        ConfigError: the width of a head is not known or does not divide the rows.
    """
    prefix = prefix_of(tensors, prefix, where)
    blocks = sorted(int(m['block']) for name in tensors if (m := ANCHOR.fullmatch(name)) and m['prefix'] == prefix)
    if blocks != list(range(len(blocks))):
        raise CheckpointError(f'Expected blocks 0, 1, 2, ... in {where} but got {blocks}. Give the whole backbone.')
    rows = {_shape(tensors, f'{prefix}blocks.{block}.attn.q_proj.weight', where)[0] for block in blocks}
    hidden = {_shape(tensors, f'{prefix}blocks.{block}.mlp.w1.weight', where)[0] for block in blocks}
    if len(rows) > 1 or len(hidden) > 1:
        raise CheckpointError(
            f'Expected blocks of one size in {where} but got {sorted(rows)} rows of q and {sorted(hidden)} neurons. '
            'Prune from the model that was not pruned yet.'
        )
    width = rows.pop()
    table = f'{prefix}blocks.0.attn.rope.freqs_cos'
    if head_dim is None:
        head_dim = width // num_heads if num_heads else _shape(tensors, table, where)[1] if table in tensors else None
    if not head_dim or width % head_dim or (num_heads and head_dim * num_heads != width):
        raise ConfigError(
            f'Expected num_heads or head_dim that divide {width} rows of q in {where} but got num_heads={num_heads}, '
            f'head_dim={head_dim}. Give the right one.'
        )
    return Sizes(prefix, len(blocks), width // head_dim, head_dim, hidden.pop())


def _shape(tensors: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f'Expected {name} in {where} but it is missing.{did_you_mean(name, tensors)} Add it.')
    return tensors.shape(name) if isinstance(tensors, TensorSource) else tuple(tensors[name].shape)


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model, with their sizes; indexing gives a module: ``blocks[3, 'attn.proj']``."""

    sizes: Sizes
    modules: tuple[nn.Module, ...]

    def __len__(self) -> int:
        return len(self.modules)

    def __getitem__(self, place: tuple[int, str]) -> Any:
        block, path = place
        return find_module(self.modules[block], path, f'block {block}')


def blocks_of(model: nn.Module, prefix: str | None = None) -> Blocks:
    """Return the blocks of a model.

    Args:
        model: the backbone, or a model that has one inside.
        prefix: path of the backbone with a dot at its end, where the model has several.

    Raises:
        CheckpointError: there are none, or their sizes differ.
        PathError: a block has no SwiGLU with ``ffn_ln``.
    """
    where = type(model).__name__
    names = [name for name, _ in model.named_parameters()]
    prefix = prefix_of(names, prefix, where)
    modules = tuple(find_module(model, f'{prefix}blocks', where).children())
    for block, module in enumerate(modules):
        for part in PARTS:
            find_module(module, part, f'block {block} of {where}')
    heads: Any = getattr(find_module(modules[0], 'attn', where), 'num_heads', None)
    state = dict(model.named_parameters())
    return Blocks(sizes_of(state, prefix=prefix, num_heads=heads, where=where), modules)
