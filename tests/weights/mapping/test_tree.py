"""The tree over units: modules with what they hold, chains merged, lists in the order of their numbers."""

from __future__ import annotations

from kdplugin.weights.mapping.tree import Node, build_tree
from kdplugin.weights.units import Unit, build_units


def tree_of(shapes: dict[str, tuple[int, ...]]) -> tuple[Node, list[Unit]]:
    units = build_units(shapes)
    return build_tree(units, [unit.key for unit in units]), units


def linear(*paths: str) -> dict[str, tuple[int, ...]]:
    return {f'{path}.{leaf}': shape for path in paths for leaf, shape in (('weight', (4, 4)), ('bias', (4,)))}


def test_nodes_hold_the_units_below_them() -> None:
    root, _ = tree_of(linear('a.x', 'a.y', 'b'))
    assert (root.path, root.units, root.parent) == ('', [0, 1, 2], None)
    assert [(child.path, child.units) for child in root.children] == [('a', [0, 1]), ('b', [2])]
    assert all(child.parent is root for child in root.children)
    assert [node.path for node in root.walk()] == ['', 'a', 'a.x', 'a.y', 'b']


def test_chains_of_single_modules_are_merged_and_remember_their_place() -> None:
    root, _ = tree_of(linear('encoder.layers.0.inner.fc', 'encoder.layers.1.inner.fc', 'head'))
    layers = root.children[0]
    assert (layers.path, layers.place) == ('encoder.layers', 'encoder')
    assert [(child.path, child.place, child.number) for child in layers.children] == [
        ('encoder.layers.0.inner.fc', 'encoder.layers.0', 0),
        ('encoder.layers.1.inner.fc', 'encoder.layers.1', 1),
    ]


def test_content_is_the_multiset_of_keys() -> None:
    root, _ = tree_of({**linear('a.x', 'a.y', 'b.p', 'b.q', 'c.x'), 'c.n.weight': (4,)})
    one, two, other = root.children
    assert one.content == two.content != other.content


def test_parameters_of_a_module_itself_become_children() -> None:
    root, units = tree_of({'body.fc.weight': (4, 2), 'body.weight': (3,), 'head.weight': (2, 4)})
    body = root.children[0]
    assert [[units[i].path for i in child.units] for child in body.children] == [['body'], ['body.fc']]
    assert body.children[0].content == frozenset({(units[1].key, 1)})


def test_lists_are_in_the_order_of_their_numbers() -> None:
    root, _ = tree_of(dict.fromkeys(('l.10.weight', 'l.9.weight', 'l.8.weight'), (2, 2)))
    assert [child.number for child in root.children[0].children] == [8, 9, 10]


def test_numbers_of_names() -> None:
    assert Node('blocks.3').number == 3
    assert Node('encoder_layer_12').number == 12
    assert Node('7').number == 7
    assert Node('conv1').number is None
    assert Node('blocks.3.attn').number is None
    assert Node('blocks.3.attn', place='blocks.3').number == 3
