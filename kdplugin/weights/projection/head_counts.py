"""How many heads an attention module has, before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdplugin.errors import ConfigError
from kdplugin.weights.naming import tokens
from kdplugin.weights.projection.layer_slots import Layer

Heads = int | Mapping[str, int] | None
HeadDim = int | tuple[int, int] | None
HEAD_TABLES = ('relative_position_bias_table', 'relative_attention_bias', 'logit_scale')
HEAD_WIDE = ('rel_pos_h', 'rel_pos_w')


def head_units(
    path: str,
    widths: tuple[int, int],
    inside: Sequence[Layer],
    *,
    heads: Heads = None,
    head_dim: HeadDim = None,
    rotary: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Return the width of a head before and after.

    From what is given, else from tables with a column for each head, from norms of q and k of a head's width, or from
    rotary tables.

    Args:
        path: the attention module.
        widths: of all heads together.
        inside: layers of the module that are no matrices.
        heads: {'source': 16, 'target': 8}, or the source's count, where a head keeps its width.
        head_dim: a head's width on both sides, or of source and target.
        rotary: widths of the rotary tables of source and target, if there are any.

    Raises:
        ConfigError: nothing tells it, or what is given does not divide the widths.
    """
    units = _given(widths, heads, head_dim) or _found(widths, inside) or rotary
    if units is None:
        raise ConfigError(
            f'Expected the number of heads of {path} ({widths[0]} to {widths[1]}) but its tensors do not tell it. '
            "Give heads={'source': 16, 'target': 8}, or head_dim=64 where a head keeps its width, else (64, 32)."
        )
    if any(not unit or width % unit for width, unit in zip(widths, units, strict=True)):
        raise ConfigError(
            f'Expected whole heads in {path} ({widths[0]} to {widths[1]}) but heads of {units[0]} to {units[1]} do not '
            'divide it. Give the number of heads of both sides.'
        )
    return units


def _given(widths: tuple[int, int], heads: Heads, head_dim: HeadDim) -> tuple[int, int] | None:
    if head_dim is not None:
        return (head_dim, head_dim) if isinstance(head_dim, int) else (head_dim[0], head_dim[1])
    if heads is None:
        return None
    if isinstance(heads, int):
        heads = {'source': heads}
    if not heads.keys() <= {'source', 'target'} or 'source' not in heads or min(heads.values()) < 1:
        raise ConfigError(f"Expected heads like {{'source': 16, 'target': 8}} but got {dict(heads)}. Give both counts.")
    if widths[0] % heads['source'] or ('target' in heads and widths[1] % heads['target']):
        return 0, 0
    unit = widths[0] // heads['source']
    return unit, widths[1] // heads['target'] if 'target' in heads else unit


def _found(widths: tuple[int, int], inside: Sequence[Layer]) -> tuple[int, int] | None:
    for layer in inside:
        slot, last = layer.weight, layer.weight.name.rpartition('.')[2]
        if last in HEAD_TABLES or 'relative_attention_bias' in layer.path:
            axis = 0 if last == 'logit_scale' else -1
            old, new = slot.old[axis], slot.new[axis]
            if not widths[0] % old and not widths[1] % new:
                return widths[0] // old, widths[1] // new
        if last in HEAD_WIDE:
            return slot.old[-1], slot.new[-1]
        if layer.is_norm and {'q', 'k'} & {*tokens(layer.path.rpartition('.')[2])} and max(slot.old) != widths[0]:
            return max(slot.old), max(slot.new)
    return None
