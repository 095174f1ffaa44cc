"""What speaks for pairing one layer with another, and the assignment that follows the evidence best."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from kdplugin.weights.mapping.ordinals import agreement
from kdplugin.weights.naming import name_similarity, natural_key, tokens
from kdplugin.weights.units import Unit

PART, ORDINAL, EXACT, NEARBY, ADJACENT, ORDER, TRANSPOSED = 3.0, 0.5, 1.5, 2.0, 1.0, 0.4, -0.5
"""What pieces of evidence weigh beside the likeness of names (0 to 1)."""
GAIN = 2.0
"""What it costs to take a norm's weight, with a bias beside it, for a gain without, or a table for a layer."""

AMBIGUOUS = 0.05
"""A margin below which two choices count as equally good."""

Matrix = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass
class Match:
    """A pair of units.

    Args:
        source, target: indices.
        nearby: how surely their surroundings correspond, 0 to 1.
        name: likeness of their names, 0 to 1.
        margin: distance to the second-best choice.
        rivals: source units that fit about as well, by index.
        why: what decided.
    """

    source: int
    target: int
    nearby: float
    name: float
    margin: float
    rivals: tuple[int, ...] = ()
    why: str = ''


def evidence(left: Sequence[str], right: Sequence[str]) -> Matrix:
    """Score every pair of paths by their words, half by those that both sides have, and by ordinals."""
    names = _apart(left, right)
    scores = (name_similarity(*names) + name_similarity(*names, shared_words=True)) * np.float32(0.5)
    scores += np.float32(ORDINAL) * agreement(left, right)
    at = {path: column for column, path in enumerate(right)}
    for row, path in enumerate(left):
        if path in at:
            scores[row, at[path]] += EXACT
    return scores


def _apart(left: Sequence[str], right: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leave out modules that all paths of a side lie in, on both sides: their words cannot tell one from another."""
    parts = [[path.split('.') for path in side] for side in (left, right)]
    common = [sum(1 for _ in takewhile(_equal, zip(*(part[:-1] for part in side), strict=False))) for side in parts]
    common = [number * (len(side) > 1) for number, side in zip(common, parts, strict=True)]
    first, second = ([part[at * all(common) :] for part in side] for side, at in zip(parts, common, strict=True))
    return ['.'.join(part) for part in first], ['.'.join(part) for part in second]


def _equal(values: Sequence[str]) -> bool:
    return len(set(values)) == 1


def fit(one: Sequence[Unit], two: Sequence[Unit]) -> Matrix:
    """Score parts of attention, orientation, and whether the same kinds of tensors are there."""
    part = {None: 0, 'q': 1, 'k': 2, 'v': 3, 'gate': 4, 'up': 5}
    parts = [np.array([part[unit.part] for unit in side]) for side in (one, two)]
    both = (parts[0][:, None] > 0) & (parts[1][None, :] > 0)
    same = parts[0][:, None] == parts[1][None, :]
    scores = PART * (both & same) - 2 * PART * (both & ~same) - 0.5 * PART * (~both & ~same)
    tall = [np.array([_orientation(unit) for unit in side]) for side in (one, two)]
    scores = scores + TRANSPOSED * (tall[0][:, None] != tall[1][None, :])
    bias = [np.array([prod(u.atoms['bias'].shape) if 'bias' in u.atoms else -1 for u in side]) for side in (one, two)]
    differ = bias[0][:, None] != bias[1][None, :]
    both = (bias[0][:, None] >= 0) & (bias[1][None, :] >= 0)
    tables = [np.array([_is_table(unit) for unit in side]) for side in (one, two)]
    scores = scores - GAIN * (tables[0][:, None] != tables[1][None, :])
    flat = np.array([len(unit.main.core) == 1 for unit in one])[:, None]
    return (scores - np.where(flat, GAIN, 0.3) * differ - PART * (both & differ)).astype(np.float32)


def _is_table(unit: Unit) -> bool:
    looked_up = {'embed', 'pos', 'token'} & set(tokens(unit.path))
    return bool(looked_up) and 'bias' not in unit.atoms and len(unit.main.core) > 1


def _orientation(unit: Unit) -> int:
    core = unit.main.core
    return 0 if len(core) < 2 else int(core[0] > core[1]) - int(core[0] < core[1])


def order_likeness(rows: int, columns: int) -> Matrix:
    """Score positions: 1 for the same rank, falling with the distance."""
    first = np.arange(rows)[:, None] / max(rows - 1, 1)
    second = np.arange(columns)[None, :] / max(columns - 1, 1)
    distance = np.abs(first - second)
    exact = (np.arange(rows)[:, None] == np.arange(columns)[None, :]) & (rows == columns)
    return (0.5 * (1 - distance) + 0.5 * exact).astype(np.float32)


def list_likeness(left: Sequence[str], right: Sequence[str]) -> Matrix:
    """Score paths that hold the same place in lists of the same length: 'a.3.b' among 'a.*.b' is the fourth."""
    places = [_one_list(side) for side in (left, right)]
    if not all(places):
        places = [_places(side) for side in (left, right)]
    ranks = [np.array([rank for rank, _ in side]) for side in places]
    sizes = [np.array([size for _, size in side]) for side in places]
    same = (ranks[0][:, None] == ranks[1][None, :]) & (sizes[0][:, None] == sizes[1][None, :])
    return (same & (sizes[0][:, None] > 1)).astype(np.float32)


def _one_list(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return (place, length) of paths that are all elements of one list, however deep in them; [] if they are not."""
    parts = [path.split('.') for path in paths]
    common = sum(1 for _ in takewhile(_equal, zip(*parts, strict=False)))
    indices = [part[common] if len(part) > common else '' for part in parts]
    if not all(index.isdigit() for index in indices) or len(set(indices)) < len(indices):
        return []
    order = sorted(map(int, indices))
    return [(order.index(int(index)), len(order)) for index in indices]


def _places(paths: Sequence[str]) -> list[tuple[int, int]]:
    lists: dict[str, list[str]] = {}
    for path in paths:
        lists.setdefault(re.sub(r'\d+', '#', path), []).append(path)
    found = {}
    for members in lists.values():
        for rank, path in enumerate(sorted(members, key=natural_key)):
            found[path] = (rank, len(members))
    return [found[path] for path in paths]


@dataclass(frozen=True)
class Choice:
    """One pair of an assignment.

    Args:
        margin: what the total would lose if this pair exchanged partners with another, or took a free one; at most 1.
        rival: the row that comes nearest to taking its place, if it is taken.
    """

    row: int
    column: int
    margin: float
    rival: int | None


def solve(scores: Matrix) -> list[Choice]:
    """Return the assignment with the highest total."""
    rows, columns = linear_sum_assignment(-scores)
    margins, rivals = exchange_margins(scores, rows, columns)
    return [
        Choice(int(row), int(column), float(margin), int(rival) if rival >= 0 else None)
        for row, column, margin, rival in zip(rows, columns, margins, rivals, strict=True)
    ]


def exchange_margins(scores: Matrix, rows: Indices, columns: Indices) -> tuple[Matrix, Indices]:
    """Return for each pair of an assignment its margin, and the row it would be lost to (-1 for none)."""
    best = scores[rows, columns]
    square = scores[np.ix_(rows, columns)]
    loss = best[:, None] + best[None, :] - square - square.T
    np.fill_diagonal(loss, np.inf)
    free = [np.setdiff1d(np.arange(size), used) for size, used in zip(scores.shape, (rows, columns), strict=True)]
    loss = np.hstack(
        [
            loss,
            best[:, None] - scores[np.ix_(free[0], columns)].T,
            best[:, None] - scores[np.ix_(rows, free[1])],
        ]
    )
    takers = np.concatenate([rows, free[0], np.full(len(free[1]), -1)])
    nearest = loss.argmin(axis=1)
    margins = loss[np.arange(len(rows)), nearest]
    return np.minimum(margins, 1.0).astype(np.float32), np.where(np.isfinite(margins), takers[nearest], -1)
