"""The modules of a model as a tree over its units, with nodes that can be compared by what they hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from kdplugin.weights.naming import natural_key
from kdplugin.weights.units import Unit


@dataclass(eq=False)
class Node:
    """A module: the units below it and its child modules.

    Args:
        path: dotted path, '' for the model.
        units: indices of all units below, in order.
        children: modules with at least one unit; a module with a single child and nothing else is merged with it.
        parent: None for the model.
        place: path of the outermost of the modules that were merged into this one.
    """

    path: str
    units: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    parent: Node | None = None
    content: Hashable = None
    place: str = ''

    @property
    def number(self) -> int | None:
        """The index of an element of a list of modules ('3', 'encoder_layer_3'), else None."""
        found = re.search(r'(?:^|\.|_)(\d+)$', self.place or self.path)
        return int(found[1]) if found else None

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


def build_tree(units: Sequence[Unit], keys: Sequence[Hashable]) -> Node:
    """Return the tree over units; ``content`` of each node is the multiset of its units' keys."""
    root = Node('')
    nodes = {'': root}
    for index, unit in enumerate(units):
        node = root
        node.units.append(index)
        parts = unit.path.split('.')
        for depth in range(1, len(parts) + 1):
            path = '.'.join(parts[:depth])
            if path not in nodes:
                nodes[path] = Node(path, parent=node)
                node.children.append(nodes[path])
            node = nodes[path]
            node.units.append(index)
    _finish(root, keys)
    return root


def _finish(node: Node, keys: Sequence[Hashable]) -> None:
    for index, child in enumerate(node.children):
        place = child.path
        while len(child.children) == 1 and len(child.children[0].units) == len(child.units):
            child = child.children[0]
        child.parent, child.place = node, place
        node.children[index] = child
        _finish(child, keys)
    below = {index for child in node.children for index in child.units}
    if node.children:
        own = [index for index in node.units if index not in below]
        node.children = [*(Node(node.path, [index], parent=node) for index in own), *node.children]
        for child in node.children[: len(own)]:
            child.content = frozenset(Counter([keys[child.units[0]]]).items())
    numbered = [child for child in node.children if child.number is not None]
    if node.children and len(numbered) == len(node.children):
        node.children.sort(key=lambda child: natural_key(child.place))
    node.content = frozenset(Counter(keys[index] for index in node.units).items())


def families(nodes: Sequence[Node]) -> list[list[Node]]:
    """Group modules by the list they are elements of; others stand alone."""
    groups: dict[Hashable, list[Node]] = {}
    for node in nodes:
        groups.setdefault(id(node.parent) if node.number is not None else node.path, []).append(node)
    return list(groups.values())


def lists_alone(left: Sequence[Node], right: Sequence[Node]) -> bool:
    """Tell whether both sides have their modules in one list of the same length."""
    return len(left) == len(right) > 1 == len(families(left)) == len(families(right))


def head_of(family: Sequence[Node]) -> str:
    """Return the path of the list that modules are elements of, or of one that stands alone."""
    first = family[0]
    return first.parent.path if first.number is not None and first.parent else first.place or first.path
