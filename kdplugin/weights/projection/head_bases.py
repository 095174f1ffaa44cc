"""Bases of attention heads: whole heads are chosen, averaged or copied, and rotary pairs stay pairs within them.

H heads of S values become h heads of T values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup
from kdplugin.weights.projection.axis_maps import AxisMap
from kdplugin.weights.projection.svd_bases import balanced_pair

Pair = tuple[AxisMap, AxisMap]


@dataclass(frozen=True)
class HeadCopy:
    """A source head in a target head.

    Args:
        part: which T of its S values, where several narrower heads are filled from one.
        writes: weight in A, below 1 where heads are averaged.
        reads: weight in B for values, below 1 where several target heads hold the same ones.
        shares: likewise for queries and keys, which all copies of a head have in common.
    """

    target: int
    source: int
    part: int = 0
    writes: float = 1.0
    reads: float = 1.0
    shares: float = 1.0


def head_maps(group: AxisGroup, statistics: Mapping[str, Tensor]) -> dict[str, Pair]:
    """Return the pair (A, B) for each side of a 'heads' group: 'out' (v and o), 'q', 'k', 'head' and 'dim'.

    Where several query heads share a key head, all that belong to a key head go with it: 'q', and 'o' in place of 'in'.

    Attention scores are divided by the root of the head's width: where that changes, q and k are multiplied by
    (T / S)^(1/4) each. A narrower head keeps every (S / T)th rotary pair, whose frequencies are those of a narrower
    head, see ``rotary_rows``. With method 'svd' the values of narrower heads, and q and k where nothing rotary sits
    between them, take the best form of rank T of W_o W_v and of W_k^T W_q instead.

    Args:
        statistics: Gram matrices [H, S, S] over the rows of each head by side: 'out' (v), 'in' or 'o' (o), 'q', 'k'.

    Raises:
        CheckpointError: a width is no multiple of its head.
    """
    old, new = group.unit, group.target_unit or group.unit
    for width, unit in ((group.source_width, old), (group.target_width, new)):
        if width % unit:
            raise CheckpointError(f'Expected whole heads of {unit} but got a width of {width}. Give the head counts.')
    count = group.source_width // old
    copies = head_copies(group, count, statistics)
    factor = (new / old) ** 0.25
    rows, sizes = rotary_rows(old, new, group.rotary), (group.target_width, group.source_width, new, old)
    value = _sparse(copies, sizes, lambda copy: _value_rows(group.method, old, new, copy.part))
    query = key = _sparse([replace(copy, reads=copy.shares) for copy in copies], sizes, lambda _: rows)
    grouped = group.queries != (1, 1)
    if group.method == 'svd' and new < old and not grouped:
        if {'out', 'in'} <= statistics.keys() and all(side != 'gain' for _, _, side in group.members):
            value = _turned_values(copies, sizes, statistics)
        if group.rotary == 'none' and {'q', 'k'} <= statistics.keys():
            query, key = _turned_scores(copies, sizes, statistics)
    dim = AxisMap(new, old, *torch.tensor(rows).T)
    head = _sparse([replace(c, reads=c.shares) for c in copies], (sizes[0] // new, count, 1, 1), lambda _: [(0, 0)])
    scaled = {side: (a.scaled(factor), b.scaled(1 / factor)) for side, (a, b) in
              {'q': query, 'k': key, 'dim': (dim, dim.transpose())}.items()}  # fmt: skip
    if not grouped:
        return {'out': value, 'head': head, **scaled}
    asked = query_copies(group, copies, statistics)
    sizes = (sizes[0] * group.queries[1], sizes[1] * group.queries[0], new, old)
    a, b = _sparse([replace(copy, reads=copy.shares) for copy in asked], sizes, lambda _: rows)
    out, inward = _sparse(asked, sizes, lambda copy: _value_rows(group.method, old, new, copy.part))
    reads = {'q': (a.scaled(factor), b.scaled(1 / factor)), 'o': (inward.transpose(), out.transpose())}
    return {'out': value, 'head': head, **scaled, **reads}


def rotary_rows(old: int, new: int, rotary: str = 'both') -> list[tuple[int, int]]:
    """Return (row of the new head, row of the old one), evenly spread, so that rotary pairs stay pairs.

    The new head's frequencies theta^(-2j / T) are the old ones at i = j S / T; a wider head has its old rows where
    these fit, and zeros between. 'both' keeps the pairs of either custom, at frequencies that fit the first.

    Raises:
        CheckpointError: the custom is unknown, or a width has no such pairs.
    """
    if new > old:
        return [(wide, narrow) for narrow, wide in rotary_rows(new, old, rotary)]
    size = {'interleaved': 2, 'halves': 2, 'both': 4, 'none': 1}.get(rotary, 0)
    if rotary == 'both' and (old % 4 or new % 4):
        size = 1 if old % 2 or new % 2 else 2
    if not size or old % size or new % size:
        raise CheckpointError(
            f'Expected rotary to be interleaved, halves, both or none, for heads of whole pairs, but got {rotary!r} '
            f'for {old} to {new}. Correct the group.'
        )
    chosen = [j * (old // size) // (new // size) for j in range(new // size)]
    if rotary == 'halves' or size == 4:
        run = size // 2
        return list(enumerate(half + run * i + part for half in (0, old // 2) for i in chosen for part in range(run)))
    return list(enumerate(size * i + part for i in chosen for part in range(size)))


def head_copies(group: AxisGroup, count: int, statistics: Mapping[str, Tensor]) -> list[HeadCopy]:
    """Return which of ``count`` source heads each target head takes."""
    old, new = group.unit, group.target_unit or group.unit
    wanted = group.target_width // new
    energy = _energy(statistics, count)
    best = list(range(count)) if energy is None else energy.argsort(descending=True, stable=True).tolist()
    if group.method == 'average' and wanted < count:
        groups = [head * wanted // count for head in range(count)]
        return [HeadCopy(j, i, writes=1 / groups.count(j)) for i, j in enumerate(groups)]
    if wanted <= count:
        return [HeadCopy(j, i) for j, i in enumerate(sorted(best[:wanted]))]
    if group.method == 'zero':
        return [HeadCopy(j, j) for j in range(count)]
    heads = [j % count for j in range(wanted - wanted % count)] + sorted(best[: wanted % count])
    parts = 1 if group.method == 'average' else max(old // new, 1)
    copies = [HeadCopy(j, i, heads[:j].count(i) % parts) for j, i in enumerate(heads)]
    alike, shared = Counter((c.source, c.part) for c in copies), Counter(heads)
    return [replace(c, reads=1 / alike[c.source, c.part], shares=1 / shared[c.source]) for c in copies]


def query_copies(group: AxisGroup, copies: Sequence[HeadCopy], statistics: Mapping[str, Tensor]) -> list[HeadCopy]:
    """Return which query head each one of the target takes: of the same key head, those with most energy, or copies."""
    before, after = group.queries
    energy = _energy({side: statistics[side] for side in ('q', 'o') if side in statistics})
    found = []
    for copy in copies:
        ranked = list(range(before))
        if energy is not None:
            ranked = energy.reshape(-1, before)[copy.source].argsort(descending=True, stable=True).tolist()
        spare = 0 if group.method == 'zero' else max(after - before, 0)
        chosen = [*sorted(ranked[:after]), *(a % before for a in range(spare))]
        for a, b in enumerate(chosen):
            target, source = copy.target * after + a, copy.source * before + b
            same = chosen.count(b)
            found.append(
                replace(copy, target=target, source=source, reads=copy.reads / same, shares=copy.shares / same)
            )
    return found


def _energy(statistics: Mapping[str, Tensor], count: int = -1) -> Tensor | None:
    """Return what each of ``count`` heads writes times how it is read, or None; a key head's queries count for it."""
    grams = [statistics[side] for side in ('out', 'in', 'o') if side in statistics] or list(statistics.values())
    traces = [gram.diagonal(dim1=1, dim2=2).sum(1) for gram in grams]
    traces = [trace.reshape(count, -1).sum(1) if count > 0 else trace for trace in traces]
    return torch.stack(traces).log().sum(0) if traces else None


def _value_rows(method: str, old: int, new: int, part: int) -> list[tuple[int, int]]:
    if new > old:
        return [(i, i) for i in range(old)]
    if method == 'average':
        return [(i * new // old, i) for i in range(old)]
    return [(i, part * new + i) for i in range(new)]


def _sparse(copies: list[HeadCopy], sizes: tuple[int, ...], rows: Callable[[HeadCopy], list[tuple[int, int]]]) -> Pair:
    """Return A and B from the rows that each target head takes of its source head; shared target rows are means."""
    to, size, new, old = sizes
    entries = []
    for copy in copies:
        taken = rows(copy)
        alike = Counter(a for a, _ in taken)
        entries += [
            (copy.target * new + a, copy.source * old + b, copy.writes / alike[a], copy.reads) for a, b in taken
        ]
    entries.sort(key=lambda entry: entry[:2])
    targets, sources, writes, reads = (torch.tensor(column) for column in zip(*entries, strict=True))
    weights = [None if (values == 1).all() else values.double() for values in (writes, reads)]
    return AxisMap(to, size, targets, sources, weights[0]), AxisMap(size, to, sources, targets, weights[1])


def _turned_values(copies: list[HeadCopy], sizes: tuple[int, ...], statistics: Mapping[str, Tensor]) -> Pair:
    """Return the pair for v and o: the best rank T of W_o W_v by head, further parts with the next directions."""
    new, old = sizes[2:]
    whole = [balanced_pair(v, o, old) for v, o in zip(statistics['out'], statistics['in'], strict=True)]
    rows = [slice(copy.part * new, (copy.part + 1) * new) for copy in copies]
    blocks = [(whole[c.source][0][r], whole[c.source][1][:, r]) for c, r in zip(copies, rows, strict=True)]
    return _blocks(copies, sizes, [(a * c.writes, b * c.reads) for c, (a, b) in zip(copies, blocks, strict=True)])


def _turned_scores(
    copies: list[HeadCopy], sizes: tuple[int, ...], statistics: Mapping[str, Tensor]
) -> tuple[Pair, Pair]:
    """Return the pairs for q, which takes A, and k, which takes B^T, so that k^T B A q is the best of rank T."""
    best = [balanced_pair(q, k, sizes[2]) for q, k in zip(statistics['q'], statistics['k'], strict=True)]
    taken = [(copy, *best[copy.source]) for copy in copies]
    query = _blocks(copies, sizes, [(a * c.writes, b * c.shares) for c, a, b in taken])
    return query, _blocks(copies, sizes, [(b.T * c.writes, a.T * c.shares) for c, a, b in taken])


def _blocks(copies: list[HeadCopy], sizes: tuple[int, ...], pairs: list[tuple[Tensor, Tensor]]) -> Pair:
    to, size, _, _ = sizes
    targets, sources = (torch.tensor([getattr(copy, side) for copy in copies]) for side in ('target', 'source'))
    down, up = (torch.stack([pair[i] for pair in pairs]) for i in range(2))
    return AxisMap(to, size, targets, sources, matrix=down), AxisMap(size, to, sources, targets, matrix=up)
