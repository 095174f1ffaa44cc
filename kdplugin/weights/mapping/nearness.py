"""How surely the surroundings of two layers correspond, by what is already matched inside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from kdplugin.weights.mapping.assignment import Matrix
from kdplugin.weights.units import Unit

ROOT = 0.7
"""How much it counts that two layers lie in the same model, beside that they lie in matched modules."""


def nearness(
    paths: Sequence[Sequence[str]], matched: Iterable[tuple[int, int]], left: Sequence[int], right: Sequence[int]
) -> Matrix:
    """Score pairs of layers by the most alike pair of modules that hold them.

    Modules are alike by the Dice index of what they hold: twice the matched layers over all layers in both.

    Args:
        paths: of all layers, source first.
        matched: pairs of layers.
        left, right: the layers to score.

    Returns:
        Matrix of len(left) x len(right) in 0 to 1.
    """
    above = [[_modules(path) for path in side] for side in paths]
    size: list[dict[str, int]] = [defaultdict(int), defaultdict(int)]
    for side in (0, 1):
        for modules in above[side]:
            for module in modules:
                size[side][module] += 1
    common: dict[tuple[str, str], int] = defaultdict(int)
    for i, j in matched:
        for a in above[0][i]:
            for b in above[1][j]:
                common[a, b] += 1
    partners: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for (a, b), count in common.items():
        partners[a].append((b, 2 * count / (size[0][a] + size[1][b]) * (1.0 if a and b else ROOT)))
    holds: dict[str, list[int]] = defaultdict(list)
    for column, index in enumerate(right):
        for module in above[1][index]:
            holds[module].append(column)
    near = np.zeros((len(left), len(right)), dtype=np.float32)
    for row, index in enumerate(left):
        for module in above[0][index]:
            for partner, dice in partners[module]:
                columns = holds.get(partner)
                if columns:
                    near[row, columns] = np.maximum(near[row, columns], dice)
    return near


def _modules(path: str) -> list[str]:
    parts = path.split('.')
    return ['', *('.'.join(parts[:depth]) for depth in range(1, len(parts) + 1))]


def unique_on_both(units: Sequence[Sequence[Unit]], keys: Sequence[Sequence[Hashable]]) -> tuple[list[str], list[str]]:
    """Return paths of layers whose key no other of their side has, those of both sides in the same order."""
    places: list[dict[Hashable, int]] = []
    for side in keys:
        counts = Counter(side)
        places.append({key: index for index, key in enumerate(side) if counts[key] == 1})
    both = [key for key in places[0] if key in places[1]]
    first, second = ([side[at[key]].path for key in both] for side, at in zip(units, places, strict=True))
    return first, second
