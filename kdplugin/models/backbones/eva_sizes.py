"""Sizes of EVA-ViT's blocks, checked before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from kdplugin.errors import ConfigError

GLOBAL_EVERY = 3
"""Of the default pattern, every third block attends over the whole grid."""


def width_of_heads(embed_dim: int, num_heads: int | Sequence[int]) -> int:
    """Return ``embed_dim // num_heads``.

    Raises:
        ConfigError: heads by block leave the width open, or do not divide the channels.
    """
    if not isinstance(num_heads, int):
        raise ConfigError(
            f'Expected head_dim beside num_heads {list(num_heads)} but got None. Give the width of a head.'
        )
    if num_heads < 1 or embed_dim % num_heads:
        raise ConfigError(
            f'Expected num_heads that divides embed_dim {embed_dim} but got {num_heads}. '
            'Give head_dim where heads are pruned.'
        )
    return embed_dim // num_heads


def per_block(value: int | Sequence[int], depth: int, name: str) -> tuple[int, ...]:
    """Return one number for each block.

    Raises:
        ConfigError: there are more or fewer, or one is not a whole number of at least 1.
    """
    values = (value,) * depth if isinstance(value, int) else tuple(value)
    if len(values) != depth:
        raise ConfigError(f'Expected {name} for each of {depth} blocks but got {len(values)} values. Give {depth}.')
    for block, number in enumerate(values):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ConfigError(f'Expected {name} of at least 1 but got {number!r} for block {block}. Keep one or more.')
    return values


def windowed_blocks(indexes: Sequence[int] | None, depth: int, window_size: int) -> frozenset[int]:
    """Return the blocks that attend in windows.

    Raises:
        ConfigError: there is no such block, or windows have no size.
    """
    if indexes is None:
        indexes = [index for index in range(depth) if index % GLOBAL_EVERY != GLOBAL_EVERY - 1]
    if indexes and window_size < 1:
        raise ConfigError(
            f'Expected window_size of at least 1 for blocks {list(indexes)} but got {window_size}. '
            'Set window_block_indexes=() for attention over the whole grid everywhere.'
        )
    wrong = [index for index in indexes if index not in range(depth)]
    if wrong:
        raise ConfigError(
            f'Expected window_block_indexes from 0 to {depth - 1} but got {wrong[0]}. Name blocks of this model.'
        )
    return frozenset(indexes)


def checked_outputs(indices: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """Return the blocks whose maps come out; the last is among them, so that every block has a gradient.

    Raises:
        ConfigError: they are not ascending blocks up to the last.
    """
    chosen = (depth - 1,) if indices is None else tuple(index + depth if index < 0 else index for index in indices)
    if not chosen or list(chosen) != sorted(set(chosen) & set(range(depth))) or chosen[-1] != depth - 1:
        raise ConfigError(
            f'Expected ascending out_indices up to the last block {depth - 1} but got {tuple(indices or ())}. '
            'Set depth to drop the blocks behind the last map.'
        )
    return chosen
