"""Which of several alike layers a name says it is: the second of three norms, the first, the last."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST, LAST = {'before', 'pre', 'input', 'first'}, {'after', 'post', 'second', 'final'}


@dataclass(frozen=True)
class Ordinal:
    """What a name says.

    Args:
        number: as written, or None for a word ('layernorm_before', 'final_norm').
        rank: place among the alike names beside it, from 0.
        count: how many those are, itself included.
        first, last: whether it is the first or the last of them.
        listed: the number is an index ('norms.0'), or that of the module around ('scale1.gamma').
    """

    number: int | None
    rank: int
    count: int
    first: bool
    last: bool
    listed: bool = False


def ordinals(paths: Sequence[str]) -> list[Ordinal | None]:
    """Return what each of several alike paths says, None where it says nothing.

    Numbers are ranked among names that differ by them alone. A number that nothing else has ('lambda1' in both
    'scale1.lambda1' and 'scale2.lambda1') says less than that of the module around.

    Example:
        >>> [(found.rank, found.count, found.last) for found in ordinals(['a.norms.0', 'a.norms.1', 'a.final'])]
        [(0, 2, False), (1, 2, True), (0, 1, True)]
    """
    own = [_numbered(path, 0) for path in paths]
    around = [_numbered(path, 1) for path in paths]
    places = [_places(side) for side in (own, around)]
    found: list[Ordinal | None] = []
    for path, leaf, outer in zip(paths, own, around, strict=True):
        ranks = [side.get(key[0], []) if key else [] for side, key in zip(places, (leaf, outer), strict=True)]
        if leaf and len(ranks[0]) > 1:
            found.append(_ranked(leaf[1], ranks[0], path.rpartition('.')[2].isdigit()))
        elif outer and len(ranks[1]) > 1:
            found.append(_ranked(outer[1], ranks[1], True))
        elif leaf and not path.rpartition('.')[2].isdigit():
            found.append(Ordinal(leaf[1], 0, 1, leaf[1] <= 1, leaf[1] >= 2))
        else:
            found.append(_word(path))
    return found


def _numbered(path: str, level: int) -> tuple[tuple[str, str], int] | None:
    """Return (what is before and after a number, the number) of the last part of a path, or of the one above."""
    parts = path.split('.')
    if len(parts) <= level:
        return None
    part = parts[-1 - level]
    number = re.search(r'(\d+)$', part)
    if not number or (level and part.isdigit()):
        return None
    before = '.'.join([*parts[: len(parts) - 1 - level], part[: number.start()]])
    return (before, '.'.join(parts[len(parts) - level :])), int(number[1])


def _places(numbered: Sequence[tuple[tuple[str, str], int] | None]) -> dict[tuple[str, str], list[int]]:
    groups: dict[tuple[str, str], set[int]] = {}
    for one in numbered:
        if one:
            groups.setdefault(one[0], set()).add(one[1])
    return {key: sorted(numbers) for key, numbers in groups.items()}


def _ranked(number: int, numbers: Sequence[int], listed: bool) -> Ordinal:
    rank = numbers.index(number)
    return Ordinal(number, rank, len(numbers), rank == 0, rank == len(numbers) - 1, listed)


def _word(path: str) -> Ordinal | None:
    words = set(path.rpartition('.')[2].lower().split('_'))
    first = bool(words & FIRST)
    return Ordinal(None, 0, 1, first, not first) if first or words & LAST else None


def agreement(left: Sequence[str], right: Sequence[str]) -> NDArray[np.float32]:
    """Return 1 where two paths say the same of their place, -1 where they contradict, 0 where one says nothing.

    Numbers agree by rank among as many, else as written; a word agrees with the first or the last number.
    """
    sides = [[one or Ordinal(None, -1, 0, False, False) for one in ordinals(side)] for side in (left, right)]

    def both(key: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        values = [np.array([-1 if (v := getattr(one, key)) is None else int(v) for one in side]) for side in sides]
        return values[0][:, None], values[1][None, :]

    count, rank, number, first, last, listed = map(both, ('count', 'rank', 'number', 'first', 'last', 'listed'))
    numbers = (number[0] >= 0) & (number[1] >= 0)
    alike = count[0] == count[1]
    ranked = alike & (count[0] > 1)
    same = np.where(ranked, rank[0] == rank[1], number[0] == number[1])
    same = np.where(numbers, same, ((first[0] & first[1]) | (last[0] & last[1])) > 0)
    known = (count[0] > 0) & (count[1] > 0) & ~(numbers & ~alike & ((listed[0] | listed[1]) > 0))
    return (known * (2.0 * same - 1)).astype(np.float32)
