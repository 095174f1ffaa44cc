"""The basis of an axis group: how an axis of width D becomes one of width d, the same for all that share it.

A basis is a pair, A [d, D] for what is written to the axis and B [D, d] for what is read from it, with A B = I where
the target is narrower and B A = I where it is wider. A layer W that writes becomes A W, one that reads W B, a bias
A b, and a gain g the diagonal of A diag(g) B, which is its nearest diagonal: (A * B^T) g.

truncate: the first d units, or heads. average: A is the mean over groups of neighbours and B the sum over them, so
that a signal that is constant within each group passes exactly. svd: by importance, see ``svd_bases``.
repeat: units are copied and readers divided by the number of copies, which keeps the function (Net2WiderNet, Chen et
al., ICLR 2016). zero: silent units are added, which keeps it too; they stay silent until something else moves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup
from kdplugin.weights.projection.axis_maps import AxisMap
from kdplugin.weights.projection.head_bases import head_maps
from kdplugin.weights.projection.svd_bases import best_units, orthonormal_basis

METHODS = ('truncate', 'average', 'svd', 'repeat', 'zero')


@dataclass(frozen=True)
class Basis:
    """Maps to the target's width by side, and back: ``up`` is the pseudo-inverse of ``down``.

    Args:
        pairs: (A, B) by side: 'out' and 'in' use the pair of 'out'; heads have 'q', 'k', 'head' and 'dim' besides.
        square: c where A A^T = c I and B = A^T / c, so that B A projects at right angles; None where it does not.
    """

    pairs: Mapping[str, tuple[AxisMap, AxisMap]]
    square: float | None = None

    @property
    def out(self) -> AxisMap:
        """A: what is written to the axis."""
        return self.pairs['out'][0]

    @property
    def inward(self) -> AxisMap:
        """B: what is read from it."""
        return self.pairs['out'][1]

    def down(self, side: str) -> AxisMap:
        """Return the map of a tensor's axis to the target's width."""
        if side == 'in':
            return self.inward.transpose()
        return self._gain[0] if side == 'gain' else self._pair(side)[0]

    def up(self, side: str) -> AxisMap:
        """Return the map back, for the error: an exact inverse where nothing was lost."""
        if side == 'in':
            return self.out.transpose()
        return self._gain[1] if side == 'gain' else self._pair(side)[1]

    def kept(self, side: str) -> float | None:
        """Return k with ||up(down(w))||^2 = k ||down(w)||^2 for every w, None where there is no such number."""
        if self.square is None or side not in ('out', 'in'):
            return None
        return self.square if side == 'in' else 1 / self.square

    def _pair(self, side: str) -> tuple[AxisMap, AxisMap]:
        if side not in self.pairs:
            raise CheckpointError(
                f'Expected a side of in, gain, {", ".join(self.pairs)} but got {side!r}. Correct the plan.'
            )
        return self.pairs[side]

    @cached_property
    def _gain(self) -> tuple[AxisMap, AxisMap]:
        return gain_pair(self.out, self.inward)


def make_basis(group: AxisGroup, statistics: Mapping[str, Tensor] | None = None) -> Basis:
    """Return the basis of a group.

    Args:
        statistics: for method 'svd', what ``basis_statistics`` gathers from its members: 'gram' [D, D] of what is
            written to a residual stream and 'read' [D, D] of what reads it, energies [D] of hidden units ('out', 'in',
            'gain', 'norm'), or Gram matrices [H, S, S] of heads by side.

    Raises:
        CheckpointError: the method is unknown, does not fit the widths, or lacks its statistics.
    """
    wide, narrow = group.source_width, group.target_width
    narrower, wider = METHODS[:3], METHODS[2:]
    allowed = narrower if narrow < wide else wider if narrow > wide else METHODS
    if group.method not in allowed:
        raise CheckpointError(
            f'Expected a method of {", ".join(allowed)} for {wide} to {narrow} but got {group.method!r}. '
            'Correct the group.'
        )
    measured = dict(statistics or {})
    if group.method == 'svd' and narrow <= wide and not measured:
        raise CheckpointError(
            f'Expected tensors to measure the {group.kind} basis of {wide} to {narrow} on but got none. Give the group '
            'members with side out or in, or another method.'
        )
    if group.kind == 'heads':
        return Basis(head_maps(group, measured))
    if group.method != 'svd':
        return Basis({'out': plain_pair(wide, narrow, group.method)}, 1.0 if group.method == 'truncate' else None)
    if group.kind == 'residual':
        read = measured.pop('read', None)
        gram = measured.get('gram', torch.zeros(wide, wide, dtype=torch.float64) if read is None else read)
        basis = orthonormal_basis(gram, narrow, centred=group.centred, read=read if 'gram' in measured else None)
        root = (narrow / wide) ** 0.5  # keeps the mean square over channels, which norms see, as it was
        return Basis(
            {'out': (AxisMap.of(basis.T * root), AxisMap.of(basis / root))}, root**2 if narrow <= wide else None
        )
    if narrow > wide:
        return Basis({'out': plain_pair(wide, narrow, 'repeat')})
    pick = AxisMap.pick(best_units(measured, narrow), wide)
    return Basis({'out': (pick, pick.transpose())}, 1.0)


def plain_pair(wide: int, narrow: int, method: str) -> tuple[AxisMap, AxisMap]:
    """Return A [d, D] and B [D, d] of a method that looks at no values."""
    if method == 'truncate':
        pick = AxisMap.pick(range(narrow), wide)
        return pick, pick.transpose()
    if method == 'zero':
        keep = AxisMap.pick(range(wide), narrow)
        return keep.transpose(), keep
    if method == 'repeat':
        unit = torch.arange(narrow) % wide
        copies = torch.bincount(unit, minlength=wide)
        share = AxisMap(wide, narrow, unit, torch.arange(narrow), 1 / copies[unit].double())
        return AxisMap.pick(unit, wide), share
    group = groups_of(wide, narrow)
    sizes = torch.bincount(group, minlength=narrow)
    mean = AxisMap(narrow, wide, group, torch.arange(wide), 1 / sizes[group].double())
    return mean, AxisMap.pick(group, narrow)


def groups_of(wide: int, narrow: int) -> Tensor:
    """Return which of ``narrow`` groups of neighbours each of ``wide`` units is in; sizes differ by one at most."""
    return torch.arange(wide) * narrow // wide


def gain_pair(out: AxisMap, inward: AxisMap) -> tuple[AxisMap, AxisMap]:
    """Return the map of a multiplicative vector, the diagonal of A diag(g) B, and its pseudo-inverse."""
    if out.matrix is not None or inward.matrix is not None:
        weights = out.dense() * inward.dense().T
        weights = weights / weights.sum(1, keepdim=True)
        return AxisMap.of(weights), AxisMap.of(torch.linalg.pinv(weights))
    shape = out.rows.shape
    weights = torch.ones(shape, dtype=torch.float64)
    for values in (out.values, inward.values):
        weights = weights if values is None else weights * values
    if torch.equal(weights, torch.ones(shape)):
        return AxisMap(out.to, out.size, out.rows, out.columns), inward
    to_target = weights / torch.zeros(out.to).double().index_add_(0, out.rows, weights)[out.rows]
    to_source = weights / torch.zeros(out.size).double().index_add_(0, out.columns, weights)[out.columns]
    down = AxisMap(out.to, out.size, out.rows, out.columns, to_target)
    return down, AxisMap(out.size, out.to, out.columns, out.rows, to_source)
