"""Layers of one shape whose rows or columns libraries put in another order: joined branches, classes by anchor."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kdplugin.weights.mapping.values import SAME
from kdplugin.weights.naming import natural_key, tokens
from kdplugin.weights.plan import Entry
from kdplugin.weights.units import Atom

Shapes = Mapping[str, tuple[int, ...]]
FEWEST = 3
"""Branches that make a list; fewer can be a coincidence of widths."""
DEPTH = 2
"""How deep beside its branches a layer that joins them is: 'fuse.conv.weight'."""
ANCHORS = range(2, 13)
"""How many boxes a head may predict at one place."""


def unknown_orders(entries: Sequence[Entry], shapes: tuple[Shapes, Shapes]) -> list[Entry]:
    """Refuse layers of the right shape whose values may be in another order, which names and shapes do not tell.

    Tensors of one name on both sides, alone or inside a wrapper, are of one library and stay; so do equal values.

    Args:
        entries: a plan's.
        shapes: of both sides' tensors by name, source first.
    """
    lists = [_lists(side) for side in shapes]
    result = []
    for entry in entries:
        names = (*entry.sources, entry.target)
        if entry.loads and len(names) == 2 and entry.reason != SAME and not _same_name(*names):
            reasons = [_reason(name, *side) for name, side in zip(names, zip(shapes, lists, strict=True), strict=True)]
            why = next(filter(None, reasons), None)
            if why:
                entry = replace(
                    entry, kind='refused', pieces=(), join=None, margin=0.0, reason=why, alternatives=entry.sources
                )
        result.append(entry)
    return result


def _same_name(first: str, second: str) -> bool:
    return f'.{first}'.endswith(f'.{second}') or f'.{second}'.endswith(f'.{first}')


def _list_of(name: str) -> str:
    return re.sub(r'\.\d+(?=\.)', '.#', name)


def _lists(shapes: Shapes) -> dict[str, list[str]]:
    """Return the weights that multiply by their name without numbers, where several share it."""
    found: dict[str, list[str]] = {}
    for name in sorted(shapes, key=natural_key):
        if name.endswith('.weight') and len(Atom(name, tuple(shapes[name])).core) > 1:
            found.setdefault(_list_of(name), []).append(name)
    return {key: names for key, names in found.items() if len(names) > 1}


def _reason(name: str, shapes: Shapes, lists: Mapping[str, list[str]]) -> str | None:
    branches = _joined(name, shapes, lists)
    if branches:
        return f'its inputs are the outputs of {branches} side by side, which libraries join first to last or back'
    boxes = _boxes(name, shapes, lists)
    if boxes:
        return f'it scores classes by anchor, as many as {boxes} has boxes: the background may be the first or the last'
    return None


def _joined(name: str, shapes: Shapes, lists: Mapping[str, list[str]]) -> str | None:
    """Return the list of layers beside a layer whose outputs, of one width, are together its inputs, if there is one.

    Its elements hold one layer each. A list whose layers could follow each other, each as wide as the one before, is
    none.
    """
    core = Atom(name, tuple(shapes[name])).core
    if len(core) < 2:
        return None
    for key, members in lists.items():
        branches = key.partition('.#')[0]
        head, inside = branches.rpartition('.')[0], f'{branches}.'
        alone = sum(len(names) for other, names in lists.items() if other.startswith(inside)) == len(members)
        cores = [Atom(member, tuple(shapes[member])).core for member in members]
        widths = {one[0] for one in cores}
        rest = name.removeprefix(f'{head}.') if head else name
        beside = alone and rest != name and rest.count('.') <= DEPTH and not name.startswith(inside)
        if not beside or len(members) < FEWEST or len(widths) > 1 or core[1] != len(members) * cores[0][0]:
            continue
        if any(one[1] != cores[0][0] for one in cores[1:]):
            return branches
    return None


def _boxes(name: str, shapes: Shapes, lists: Mapping[str, list[str]]) -> str | None:
    """Return the list of box layers beside one of class layers, a layer for each level with its own anchors."""
    weight = re.sub(r'\.bias$', '.weight', name)
    own = lists.get(_list_of(weight), ())
    if 'cls' not in tokens(name) or not own or not weight.endswith('.weight'):
        return None
    for key, members in lists.items():
        if 'reg' not in tokens(key) or len(members) != len(own) or members[0] in own:
            continue
        anchors = [shapes[member][0] // 4 for member in members]
        classes = {shapes[one][0] / number for one, number in zip(own, anchors, strict=True) if number}
        alike = all(shapes[one][1:] == shapes[other][1:] for one, other in zip(own, members, strict=True))
        whole = all(shapes[member][0] % 4 == 0 for member in members)
        if alike and whole and all(number in ANCHORS for number in anchors) and len(classes) == 1 and classes != {4.0}:
            return key.partition('.#')[0]
    return None
