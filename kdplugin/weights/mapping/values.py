"""Which tensors hold the same values under another name: the surest evidence where both sides are trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from kdplugin.weights.mapping.assignment import Match
from kdplugin.weights.plan import Entry, Piece, Step
from kdplugin.weights.units import Atom, Unit

Read = Callable[[str], Tensor]
SAME = 'same values'
LIMIT = 2_000_000_000
"""Sources with more values than this are not read for the comparison."""


def value_anchors(source: Sequence[Unit], target: Sequence[Unit], read: tuple[Read, Read]) -> list[Match]:
    """Pair units whose weights hold the same values, in whatever layout.

    Values are compared by sums that don't depend on their order, then exactly: as they are, transposed, or with rows or
    columns in another order. Constant tensors (fresh norms and biases) say nothing and are left out.

    Args:
        source, target: units of both sides.
        read: how to read a tensor of either side by name.

    Returns:
        Matches that are unique on both sides.
    """
    prints: tuple[dict[tuple[float, ...], list[int]], ...] = (defaultdict(list), defaultdict(list))
    for side, units in enumerate((source, target)):
        for index, unit in enumerate(units):
            found = fingerprint(_values(unit.main, read[side]))
            if found is not None:
                prints[side][found].append(index)
    matches = []
    for found, indices in prints[1].items():
        others = prints[0].get(found, [])
        if len(indices) == len(others) == 1:
            i, j = others[0], indices[0]
            if arrangement(_values(source[i].main, read[0]), _values(target[j].main, read[1])) is not None:
                matches.append(Match(i, j, 1.0, 1.0, 1.0, why=SAME))
    return matches


def fingerprint(tensor: Tensor) -> tuple[float, ...] | None:
    """Return numbers that don't depend on the order of a tensor's values, or None for one that is constant."""
    if tensor.is_meta or not tensor.is_floating_point() or tensor.numel() < 2:
        return None
    values = tensor.detach().double().flatten()
    low, high = float(values.min()), float(values.max())
    if low == high:
        return None
    return (tensor.numel(), low, high, float(f'{float(values.abs().sum()):.6g}'))


def arrangement(first: Tensor, second: Tensor) -> tuple[Step, ...] | None:
    """Return the steps that make the second tensor of the first, by values: none, a transposition, or other rows.

    Rows and columns may both be in another order; they are recognised by their sums.
    """
    a, b = (tensor.reshape(Atom('', tuple(tensor.shape)).core) for tensor in (first, second))
    back = () if tuple(first.shape) == tuple(second.shape) else (Step('reshape', {'shape': list(second.shape)}),)
    if a.shape == b.shape and torch.equal(a, b):
        return back
    if a.ndim >= 2 and a.transpose(0, 1).shape == b.shape and torch.equal(a.transpose(0, 1), b):
        flat = () if first.shape == a.shape else (Step('reshape', {'shape': list(a.shape)}),)
        turn = (*flat, Step('permute', {'dims': [1, 0, *range(2, a.ndim)]}))
        return (
            turn if tuple(second.shape) == tuple(b.shape) else (*turn, Step('reshape', {'shape': list(second.shape)}))
        )
    if a.shape != b.shape or first.shape != a.shape:
        return None
    steps = []
    for axis in range(min(a.ndim, 2)):
        orders = [torch.argsort(_sums(tensor, axis), stable=True) for tensor in (a, b)]
        indices = torch.empty_like(orders[0])
        indices[orders[1]] = orders[0]
        if not torch.equal(indices, torch.arange(len(indices))):
            steps.append(Step('index', {'dim': axis, 'indices': indices.tolist()}))
            a = a.index_select(axis, indices)
    return (*steps, *back) if torch.equal(a, b) else None


def arranged(entries: Sequence[Entry], read: tuple[Read, Read]) -> list[Entry]:
    """Give tensors that were found by their values the steps that the values ask for."""
    result = []
    for entry in entries:
        if entry.reason == SAME and len(entry.pieces) == 1 and not any(s.op == 'narrow' for s in entry.pieces[0].steps):
            steps = arrangement(read[0](entry.sources[0]), read[1](entry.target))
            if steps:
                entry = replace(entry, kind='converted', pieces=(Piece(entry.sources[0], steps),))
        result.append(entry)
    return result


def _sums(tensor: Tensor, axis: int) -> Tensor:
    return tensor.double().movedim(axis, 0).reshape(tensor.shape[axis], -1).sort(dim=1).values.sum(dim=1)


def _values(atom: Atom, read: Read) -> Tensor:
    tensor = read(atom.name)
    return tensor.narrow(atom.axis, atom.rows[0], atom.rows[1] - atom.rows[0]) if atom.rows else tensor


def readable(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether a side is small enough to be read as a whole for a comparison of values."""
    return sum(torch.Size(shape).numel() for shape in shapes.values()) <= LIMIT
