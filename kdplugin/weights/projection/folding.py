"""Norms on a stream that gets a rotated basis: their gain moves into the layers that read them.

A gain g and bias b of a norm do not commute with a rotation, but W (g * x + b) = (W diag(g)) x + W b: the readers
take them over, exactly, and the student's norm gets a gain of one and no bias. With A = sqrt(d / D) U^T and
B = sqrt(D / d) U, U from ``svd_bases.orthonormal_basis``, the mean square of A x is that of x, and the norm of A x is A
times the norm of x: exact, epsilon included, where the stream lies in the span; for RMSNorm, and for LayerNorm with a
centred basis.

Likewise LayerScale, y = g * (W x + b), moves into W and b. A norm that writes to the stream behind a layer, as Swin's
patch embedding has it, keeps the direction of what it writes: that layer becomes diag(g) (W - mean W), and the norm's
gain about the mean of g; its length then varies with the input as that of g * x does. What cannot be moved, a norm
whose output leaves the network or feeds something unknown, keeps the nearest diagonal gain, (U * U)^T g. These two are
approximate, and noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdplugin.weights.plan import Piece, ProjectionPlan, Step
from kdplugin.weights.projection.axes import Axes
from kdplugin.weights.projection.layer_slots import Layer, Slot
from kdplugin.weights.projection.transformer_blocks import Block, Sublayer

Key = tuple[int, int]

BEGINNING = {'embed', 'stem', 'pre'}
"""Words of norms that the stream begins with."""


@dataclass
class Folds:
    """Steps that begin a piece or stand before its projection, and pieces that become constant, by (entry, piece)."""

    first: dict[Key, list[Step]] = field(default_factory=dict)
    before: dict[Key, list[Step]] = field(default_factory=dict)
    constant: dict[Key, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, slot: Slot, op: str, **args: object) -> None:
        """Add a step to a piece."""
        self.before.setdefault((slot.entry, slot.piece), []).append(Step(op, args))

    def merge(self, other: Folds) -> None:
        """Take over the folds of another stream."""
        for mine, others in ((self.first, other.first), (self.before, other.before)):
            for key, steps in others.items():
                mine.setdefault(key, []).extend(steps)
        self.constant |= other.constant
        self.notes += other.notes

    def fill(self, slot: Slot, value: float) -> None:
        """Make a piece constant."""
        self.constant[slot.entry, slot.piece] = value


def fold_stream(
    plan: ProjectionPlan, axes: Axes, blocks: Sequence[Block], outside: Sequence[Layer], name: str
) -> Folds:
    """Return what has to be folded for the stream ``name`` to be rotated.

    Args:
        blocks: pre-norm blocks of this stream.
        outside: layers outside of blocks, in order.
    """
    folds = Folds()
    for block in blocks:
        for sub in block.sublayers:
            norm = block.norm_of(sub)
            if norm is not None:
                _fold_norm(plan, folds, norm, sub.readers)
            scale = block.scale_of(sub)
            if scale is not None:
                _fold_scale(folds, scale, sub)
        left = [one for one in block.scales if (one.weight.entry, one.weight.piece) not in folds.constant]
        folds.notes += [f'{one.path}: a scale on the rotated stream keeps its nearest diagonal' for one in left]
    for norm in outside:
        if norm.is_norm and _on_stream(axes, norm, name):
            readers = _readers_of(axes, norm, blocks, outside, name)
            if readers:
                _fold_norm(plan, folds, norm, readers)
            else:
                _keep(folds, norm, _writer_before(axes, norm, outside, name))
    return folds


def _on_stream(axes: Axes, norm: Layer, name: str) -> bool:
    return _group(axes, norm, len(norm.weight.old) - 1) == name


def _readers_of(axes: Axes, norm: Layer, blocks: Sequence[Block], outside: Sequence[Layer], name: str) -> list[Layer]:
    """Return the layers that read a norm outside of blocks: the merging beside it, or those behind a final norm."""
    on_stream = [
        one for one in outside if one.is_matrix and one.inputs == norm.weight.change(0) and _group(axes, one, 1) == name
    ]
    parent = norm.path.rpartition('.')[0]
    beside = [one for one in on_stream if one.path.rpartition('.')[0] == parent and 'down' in one.words]
    if beside or BEGINNING & {*norm.words}:
        return beside
    if not blocks[0].ordered:
        return on_stream
    last = max(layer.order for block in blocks for layer in block.layers)
    later = [one.order for one in outside if one.is_norm and one.order > norm.order and _on_stream(axes, one, name)]
    end = min(later, default=norm.order + len(axes.layers))
    return [one for one in on_stream if last < norm.order < one.order < end]


def _group(axes: Axes, layer: Layer, dim: int) -> str | None:
    placed = axes.places.get((layer.weight.entry, layer.weight.piece, dim))
    return placed.group if placed else None


def _fold_norm(plan: ProjectionPlan, folds: Folds, norm: Layer, readers: Sequence[Layer]) -> None:
    gain, bias = norm.weight, norm.tensors.get('bias')
    kept = bias is not None and not any('bias' in reader.tensors for reader in readers)
    for reader in readers:
        if gain.source is not None:
            folds.add(reader.weight, 'multiply', dim=1, source=gain.source)
        if bias is not None and bias.source is not None and not kept:
            _fold_bias(plan, folds, reader, bias.source)
    folds.fill(gain, 1.0)
    if bias is not None and not kept:
        folds.fill(bias, 0.0)
    elif bias is not None and gain.source is not None:  # W (g x + b) = W diag(g) (x + b / g)
        folds.add(bias, 'divide', dim=0, source=gain.source)
        folds.notes.append(f'{norm.path}: its readers have no bias, so it keeps what the basis holds of its own')


def _fold_bias(plan: ProjectionPlan, folds: Folds, reader: Layer, bias: str) -> None:
    """Add the product of a reader's weight and a norm's bias to the reader's own bias."""
    own, weight = reader.tensors.get('bias'), reader.weight
    if own is None:
        why = ', which softmax ignores unless there are rotary embeddings' if reader.part == 'k' else ''
        folds.notes.append(f'{reader.path} has no bias to take over {bias} of the norm before it: lost{why}')
        return
    steps, own_steps = (plan.entries[slot.entry].pieces[slot.piece].steps for slot in (weight, own))
    product = {'matrix': weight.source, 'vector': bias}
    cuts = [[step.args['start'], step.args['stop']] for step in steps if step.op == 'narrow' and step.args['dim'] == 0]
    if weight.source is None:
        folds.notes.append(f'{reader.path} is made of zeros: {bias} of the norm before it is lost')
    elif all(step.op in ('reshape', 'narrow') for step in steps) and len(cuts) < 2:
        folds.add(own, 'add_product', **product, rows=cuts[0] if cuts else None)
    elif steps == own_steps and all(map(_is_by_row, steps)):
        folds.first.setdefault((own.entry, own.piece), []).append(Step('add_product', {**product, 'rows': None}))
    else:
        folds.notes.append(f'{reader.path} is kept in another layout: {bias} of the norm before it is lost')


def _is_by_row(step: Step) -> bool:
    """Tell whether a step does to each row of a matrix what it does to the row's bias."""
    return step.op in ('normalise', 'scale') or (step.op in ('narrow', 'multiply', 'index') and step.args['dim'] == 0)


def _fold_scale(folds: Folds, scale: Layer, sub: Sublayer) -> None:
    for writer in sub.writers:
        for role in ('weight', 'bias'):
            if role in writer.tensors and scale.weight.source is not None:
                folds.add(writer.tensors[role], 'multiply', dim=0, source=scale.weight.source)
    folds.fill(scale.weight, 1.0)


def _writer_before(axes: Axes, norm: Layer, outside: Sequence[Layer], name: str) -> Layer | None:
    """Return the layer whose output goes through a norm to the stream, and nowhere else, or None."""
    parent = norm.path.rpartition('.')[0]
    beside = [one for one in outside if one.is_matrix and parent and one.path.rpartition('.')[0] == parent]
    return beside[0] if len(beside) == 1 and _group(axes, beside[0], 0) == name else None


def _keep(folds: Folds, norm: Layer, writer: Layer | None) -> None:
    """Leave a norm its nearest diagonal gain: one whose output enters the stream, or is read by nothing loaded."""
    if writer is None or norm.weight.source is None:
        folds.notes.append(f'{norm.path}: no reader takes over its gain; it keeps the nearest diagonal, approximately')
        return
    for role in writer.tensors.keys() & {'weight', 'bias'}:
        folds.add(writer.tensors[role], 'centre', dim=0)
        folds.add(writer.tensors[role], 'multiply', dim=0, source=norm.weight.source)
    folds.notes.append(f'{norm.path}: {writer.path} takes over its gain; what the stream begins with is approximate')


def folded_piece(piece: Piece, key: Key, folds: Folds, shape: tuple[int, ...]) -> Piece:
    """Return a piece with its folds; the target's shape is that of constants."""
    if key in folds.constant:
        fill = Step('fill', {'shape': list(shape), 'value': folds.constant[key]})
        return Piece(piece.source, (*piece.steps, fill), piece.shape)
    steps = (*folds.first.get(key, []), *piece.steps, *folds.before.get(key, []))
    return Piece(piece.source, steps, piece.shape)
