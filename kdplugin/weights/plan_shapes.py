"""Follow the shapes through a plan before a value is read, so that a plan that does not fit fails at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.plan import AxisGroup, Piece, ProjectionPlan, Step
from kdplugin.weights.reading.tensor_source import TensorSource
from kdplugin.weights.steps import run_step


def check_plan(plan: ProjectionPlan, source: TensorSource) -> None:
    """Check that every step of a plan fits its source and that every entry gets its shape.

    Raises:
        CheckpointError: a source tensor is missing, a step does not fit, or a shape comes out wrong.
    """
    meta = MetaSource(source)
    for entry in plan.entries:
        if not entry.loads:
            continue
        try:
            shape = joined([piece_shape(piece, meta, plan.groups) for piece in entry.pieces], entry.join or 0)
        except CheckpointError as error:
            raise CheckpointError(f'{entry.target}: {error}') from None
        if shape != entry.shape:
            raise CheckpointError(
                f'Expected {entry.target} of shape {entry.shape} but the plan makes {shape} of '
                f'{", ".join(entry.sources) or "zeros"}. Add project steps with with_projection, or correct the plan.'
            )


def joined(shapes: list[tuple[int, ...]], axis: int) -> tuple[int, ...]:
    """Return the shape of a concatenation."""
    first = shapes[0]
    if any(len(s) != len(first) or s[:axis] != first[:axis] or s[axis + 1 :] != first[axis + 1 :] for s in shapes):
        raise CheckpointError(
            f'Expected pieces that join along axis {axis} but got {", ".join(map(str, shapes))}. Correct the plan.'
        )
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :]) if len(shapes) > 1 else first


def piece_shape(piece: Piece, source: MetaSource, groups: Mapping[str, AxisGroup]) -> tuple[int, ...]:
    """Return the shape of a piece after its steps."""
    if piece.source is None:
        if piece.shape is None:
            raise CheckpointError('Expected the shape of a piece of zeros but got none. Give it a shape.')
        tensor = torch.empty(piece.shape, device='meta')
    else:
        tensor = source[piece.source]
    for step in piece.steps:
        tensor = _projected(tensor, step, groups) if step.op == 'project' else run_step(tensor, step, source)
    return tuple(tensor.shape)


def _projected(tensor: Tensor, step: Step, groups: Mapping[str, AxisGroup]) -> Tensor:
    name, side, dim = step.args['group'], step.args['side'], step.args['dim']
    if name not in groups:
        raise CheckpointError(
            f'Expected an axis group of the plan but got {name!r}.{did_you_mean(name, groups)} Correct the plan.'
        )
    if not tensor.is_floating_point():
        raise CheckpointError(f'Expected floating numbers for {step} but got {tensor.dtype}. Correct the plan.')
    old, new = side_widths(groups[name], side)
    if not 0 <= dim < tensor.ndim or tensor.shape[dim] != old:
        raise CheckpointError(
            f'Expected axis {dim} to be {old} wide for {step} but got shape {tuple(tensor.shape)}. Correct the plan.'
        )
    return tensor.new_empty([new if axis == dim else size for axis, size in enumerate(tensor.shape)])


def side_widths(group: AxisGroup, side: str) -> tuple[int, int]:
    """Return the widths before and after of an axis with this side in a group."""
    unit, target_unit = group.unit, group.target_unit or group.unit
    if side == 'head':
        return group.source_width // unit, group.target_width // target_unit
    if side == 'dim':
        return unit, target_unit
    if side in ('q', 'o'):
        return group.source_width * group.queries[0], group.target_width * group.queries[1]
    return group.source_width, group.target_width


class MetaSource(TensorSource):
    """The shapes and types of a source, as tensors without values."""

    def __init__(self, source: TensorSource) -> None:
        super().__init__(source.name)
        self._source = source

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._source:
            raise CheckpointError(
                f'Expected a tensor {key!r} in {self.name} but it is not there.{did_you_mean(key, self._source)} '
                'Make the plan again for this source.'
            )
        return torch.empty(self._source.shape(key), dtype=self._source.dtype(key), device='meta')

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
