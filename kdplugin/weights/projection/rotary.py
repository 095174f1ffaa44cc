"""What names and shapes tell about rotary embeddings, which most networks compute and do not keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kdplugin.weights.naming import tokens
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.layer_slots import Layer
from kdplugin.weights.projection.transformer_blocks import Block
from kdplugin.weights.reading.tensor_source import TensorSource

TABLES = {'freqs_cos': 1, 'freqs_sin': 1, 'cos_cached': 1, 'sin_cached': 1, 'inv_freq': 2}
"""Last names of rotary tables, and how many values of a head one of their columns stands for."""
SIGNS = ('rope', 'rotary', *TABLES)


def rotary_widths(plan: ProjectionPlan, source: TensorSource) -> tuple[int, int] | None:
    """Return the widths of heads that rotary tables of both sides tell, or None."""
    old = _width({name: source.shape(name) for name in source})
    new = _width({entry.target: entry.shape for entry in plan.entries})
    return (old, new) if old and new else None


def _width(shapes: Mapping[str, Sequence[int]]) -> int | None:
    for name, shape in shapes.items():
        last = name.rpartition('.')[2]
        if last in TABLES and shape:
            return shape[-1] * TABLES[last]
    return None


def rotary_custom(names: Iterable[str], layers: Sequence[Layer], blocks: Sequence[Block]) -> str:
    """Return 'none' where absolute positions are learned and nothing hints at rotary ones, else 'both'.

    Hints are names, norms of q and k, and k without a bias beside q with one (EVA). ``torch.nn.MultiheadAttention``,
    which has its weights in 'in_proj_weight', has no rotary embeddings.

    Args:
        names: tensors of source and target.
        layers: of the target, for its position tables.
    """
    listed = list(names)
    if any(sign in name.lower() for name in listed for sign in SIGNS):
        return 'both'
    attention = [sub for block in blocks for sub in block.sublayers if sub.kind == 'attention']
    inside = [layer for sub in attention for layer in (*sub.inner, *sub.tables)]
    if any(layer.is_norm and {'q', 'k'} & {*tokens(layer.path.rpartition('.')[2])} for layer in inside):
        return 'both'
    keys = [one for sub in attention for one in (*sub.readers, *sub.context) if one.part == 'k']
    if any('bias' not in layer.tensors for layer in keys):
        return 'both'
    tables = any(layer.is_table and 'pos' in layer.words for layer in layers)
    plain = any(name.rpartition('.')[2] == 'in_proj_weight' for name in listed)
    return 'none' if tables or plain else 'both'
