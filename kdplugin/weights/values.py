"""Which tensors hold the same values under another name: the surest evidence where both sides are trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from kdplugin.weights.matching import Match
from kdplugin.weights.units import Atom, Unit

Read = Callable[[str], Tensor]
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
            if same_values(_values(source[i].main, read[0]), _values(target[j].main, read[1])):
                matches.append(Match(i, j, 1.0, 1.0, 1.0, why='same values'))
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


def same_values(first: Tensor, second: Tensor) -> bool:
    """Tell whether two tensors hold the same values: as they are, transposed, or with one axis in another order."""
    return arrangement(first, second) is not None


def arrangement(first: Tensor, second: Tensor) -> tuple[str, int, list[int]] | None:
    """Return how to get the second tensor from the first: ('same'|'transpose'|'index', axis, indices), or None.

    Leading and trailing axes of one are ignored, as 'index' counts axes of the second tensor's core.
    """
    a = first.reshape(Atom('', tuple(first.shape)).core)
    b = second.reshape(Atom('', tuple(second.shape)).core)
    if a.shape == b.shape and torch.equal(a, b):
        return ('same', 0, [])
    if a.ndim >= 2 and a.transpose(0, 1).shape == b.shape and torch.equal(a.transpose(0, 1), b):
        return ('transpose', 0, [])
    if a.shape != b.shape:
        return None
    for axis in range(min(a.ndim, 2)):
        rows = [
            _row_order(tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]) for tensor in (a, b)
        ]
        indices = torch.empty_like(rows[0])
        indices[rows[1]] = rows[0]
        if torch.equal(a.index_select(axis, indices), b):
            return ('index', axis, indices.tolist())
    return None


def _row_order(rows: Tensor) -> Tensor:
    """Return an order of rows that depends on their values alone (rows that differ in their sums)."""
    values = rows.double()
    weights = torch.linspace(1.0, 2.0, values.shape[1], dtype=torch.float64)
    return torch.argsort(values @ weights, stable=True)


def _values(atom: Atom, read: Read) -> Tensor:
    tensor = read(atom.name)
    return tensor[atom.rows[0] : atom.rows[1]] if atom.rows else tensor


def readable(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Tell whether a side is small enough to be read as a whole for a comparison of values."""
    return sum(torch.Size(shape).numel() for shape in shapes.values()) <= LIMIT
