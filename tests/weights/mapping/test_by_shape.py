"""Equal shapes in order: the first that is left, and none for the rest."""

from __future__ import annotations

from kdplugin.weights.mapping.by_shape import by_shape


def test_equal_shapes_pair_in_order_and_each_is_used_once() -> None:
    source = {'a': (2,), 'b': (3,), 'c': (2,)}
    entries = by_shape(source, {'x': (2,), 'c': (2,), 'y': (2,), 'z': (4,)})
    assert [(e.target, e.kind, e.sources) for e in entries] == [
        ('x', 'renamed', ('a',)),
        ('c', 'exact', ('c',)),
        ('y', 'random', ()),
        ('z', 'random', ()),
    ]
    assert entries[3].reason == 'no source tensor of this shape is left'
