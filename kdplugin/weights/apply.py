"""Carry out a plan: one target tensor after the other, without a decision of its own.

Working memory is that of the largest source tensor a few times over, and of the bases; a source that reads lazily is
never held whole. Its tensors are never changed, and the same plan gives the same bits again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.layouts.views import viewed
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.plan_shapes import check_plan
from kdplugin.weights.projection.axis_maps import AxisMap
from kdplugin.weights.projection.bases import Basis
from kdplugin.weights.projection.basis_statistics import make_bases
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reading.tensor_source import TensorSource
from kdplugin.weights.steps import computable, run_step

RESOLVED = 1e-3
"""Shares of lost energy above this are the difference of two norms in float32, good to three digits."""


@dataclass(frozen=True)
class AppliedTensor:
    """One tensor of the target.

    Args:
        error: ||W - up(down(W))|| / ||W|| in the Frobenius norm, where up takes the projected tensor back to the
            source's width: what the new width cannot hold. 0 where nothing was projected; 1 - error^2 is the energy
            kept.
    """

    name: str
    tensor: Tensor
    error: float


@dataclass(frozen=True)
class Applied:
    """The tensors that a plan gives a target, and what each lost; see ``AppliedTensor``."""

    tensors: dict[str, Tensor]
    errors: dict[str, float]


def apply_plan(
    plan: ProjectionPlan,
    source: object,
    *,
    target_dtypes: Mapping[str, torch.dtype] | None = None,
    moments: Mapping[str, Tensor] | None = None,
) -> Applied:
    """Return the target's tensors that a plan loads.

    Args:
        source: whatever ``open_source`` takes.
        target_dtypes: types by target tensor; without one a tensor keeps its source's type.
        moments: second moments by axis group; see ``kdplugin.weights.projection.moments``.

    Raises:
        CheckpointError: the plan does not fit the source, or a tensor is not finite or of a wrong type.

    Example:
        >>> from kdplugin.weights.plan import Entry, Piece
        >>> plan = ProjectionPlan('teacher', 'student', (Entry('w', (2,), 'renamed', (Piece('v'),)),))
        >>> apply_plan(plan, {'v': torch.ones(2)}).tensors
        {'w': tensor([1., 1.])}
    """
    parts = list(stream_plan(plan, source, target_dtypes=target_dtypes, moments=moments))
    return Applied({part.name: part.tensor for part in parts}, {part.name: part.error for part in parts})


def stream_plan(
    plan: ProjectionPlan,
    source: object,
    *,
    target_dtypes: Mapping[str, torch.dtype] | None = None,
    moments: Mapping[str, Tensor] | None = None,
) -> Iterator[AppliedTensor]:
    """Yield the tensors of ``apply_plan`` one at a time, in the plan's order."""
    checked = _Checked(viewed(open_source(source), plan))
    check_plan(plan, checked)
    bases = make_bases(plan, checked, moments)
    for entry in plan.entries:
        if entry.loads:
            yield _make(entry, checked, bases, (target_dtypes or {}).get(entry.target))


def _make(entry: Entry, source: TensorSource, bases: Mapping[str, Basis], dtype: torch.dtype | None) -> AppliedTensor:
    try:
        parts = [_piece(piece, source, bases) for piece in entry.pieces]
    except CheckpointError as error:
        raise CheckpointError(f'{entry.target}: {error}') from None
    known = [source.dtype(name) for name in entry.sources]
    dtype = dtype or (known[0] if known else torch.float32)
    if any(kind.is_floating_point != dtype.is_floating_point for kind in known):
        raise CheckpointError(
            f'Expected {dtype} for {entry.target} but got {known[0]} from {entry.sources[0]}. '
            'Dequantise the source, or take the tensor out of the plan.'
        )
    result = torch.empty(entry.shape, dtype=dtype)
    if len(parts) == 1:
        result.copy_(parts[0].tensor)
    else:
        torch.cat([part.tensor.to(dtype) for part in parts], entry.join or 0, out=result)
    if dtype == torch.float16 and not torch.isfinite(result).all():
        raise CheckpointError(f'Expected values of {entry.target} that fit {dtype} but got larger ones. Use bfloat16.')
    lost = sum(part.lost for part in parts)
    total = sum(part.total or _energy(part.tensor) for part in parts) if lost else 1.0
    return AppliedTensor(entry.target, result, math.sqrt(lost / total))


@dataclass(frozen=True)
class _Part:
    """A prepared piece, its energy before projection, if it was projected, and what of that was lost."""

    tensor: Tensor
    total: float
    lost: float


def _energy(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(computable(tensor))) ** 2


def _piece(piece: Piece, source: TensorSource, bases: Mapping[str, Basis]) -> _Part:
    tensor = torch.zeros(piece.shape or ()) if piece.source is None else source[piece.source]
    total = lost = 0.0
    for projects, steps in groupby(piece.steps, lambda step: step.op == 'project'):
        if projects:
            part = _projected(computable(tensor), list(steps), bases)
            tensor, total, lost = part.tensor, total + part.total, lost + part.lost
        else:
            for step in steps:
                tensor = run_step(tensor, step, source)
    return _Part(tensor, total, lost)


def _projected(tensor: Tensor, steps: list[Step], bases: Mapping[str, Basis]) -> _Part:
    """Return the tensor with several axes projected: those at right angles first, of these the cheapest.

    What a projection at right angles loses follows from two norms, and what later ones lose lies at right angles to
    that. Only a loss too small for the difference of two norms takes the way back.
    """
    found = [(bases[step.args['group']], step.args['side'], step.args['dim']) for step in steps]
    maps = [(basis.down(side), basis.up(side), basis.kept(side), dim) for basis, side, dim in found]
    maps.sort(key=lambda item: (item[2] is None, item[0].matrix is not None, item[0].to / item[0].size, item[3]))
    right, oblique = ([item for item in maps if (item[2] is None) == slanted] for slanted in (False, True))
    total = _energy(tensor)
    inner, kept = _there(tensor, right), math.prod(item[2] for item in right if item[2] is not None)
    lost = total - kept * _energy(inner) if right else 0.0
    if lost < RESOLVED * total:
        lost = _energy(_back(inner, right).sub_(tensor)) if right else 0.0
    result = _there(inner, oblique)
    if oblique:
        lost += kept * _energy(_back(result, oblique).sub_(inner))
    return _Part(result, total, lost)


_Map = tuple[AxisMap, AxisMap, float | None, int]


def _there(tensor: Tensor, maps: list[_Map]) -> Tensor:
    for down, _, _, dim in maps:
        tensor = down(tensor, dim)
    return tensor


def _back(tensor: Tensor, maps: list[_Map]) -> Tensor:
    for _, up, _, dim in reversed(maps):
        tensor = up(tensor, dim)
    return tensor


class _Checked(TensorSource):
    """A source whose tensors are there, finite and plain numbers, or named; keeps the last one read."""

    def __init__(self, source: TensorSource) -> None:
        super().__init__(source.name)
        self._source = source
        self._last: tuple[str, Tensor] | None = None
        self._finite: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        if self._last is None or self._last[0] != key:
            self._last = None
            self._last = (key, self._read(key))
        return self._last[1]

    def _read(self, key: str) -> Tensor:
        value = self._source[key].detach().cpu()
        if value.is_floating_point() and value.element_size() == 1:
            raise CheckpointError(
                f'Expected plain numbers in {key} of {self.name} but got {value.dtype}. '
                'Use the checkpoint from before quantisation, or dequantise it first.'
            )
        if key not in self._finite and value.is_floating_point() and not _is_finite(value):
            raise CheckpointError(
                f'Expected finite weights but got NaN or infinity in {key} of {self.name}. Use an earlier checkpoint.'
            )
        self._finite.add(key)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def __contains__(self, key: object) -> bool:
        return key in self._source

    def shape(self, key: str) -> tuple[int, ...]:
        return self._source.shape(key)

    def dtype(self, key: str) -> torch.dtype:
        return self._source.dtype(key)


def _is_finite(value: Tensor) -> bool:
    """Tell whether all values are finite; a finite sum, which is quick, says so."""
    return value.is_meta or bool(torch.isfinite(value.sum())) or bool(torch.isfinite(value).all())
