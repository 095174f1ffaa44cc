"""The strategy that ignores names: equal shapes, in order."""

from __future__ import annotations

from collections.abc import Mapping

from kdplugin.weights.plan import Entry, Piece


def by_shape(source: Mapping[str, tuple[int, ...]], target: Mapping[str, tuple[int, ...]]) -> list[Entry]:
    """Give each target tensor the first source tensor of its shape that is left.

    Args:
        source, target: tensor name -> shape, in order.
    """
    free: dict[tuple[int, ...], list[str]] = {}
    for name, shape in source.items():
        free.setdefault(tuple(shape), []).append(name)
    entries = []
    for name, shape in target.items():
        same = free.get(tuple(shape))
        if same:
            first = same.pop(0)
            kind = 'exact' if first == name else 'renamed'
            entries.append(Entry(name, tuple(shape), kind, (Piece(first),), reason='same shape, in order'))
        else:
            entries.append(Entry(name, tuple(shape), 'random', reason='no source tensor of this shape is left'))
    return entries
