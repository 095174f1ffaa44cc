"""What the bases of method 'svd' are chosen by, gathered from the members of axis groups in one pass over a source.

Residual streams: the Gram matrix of what is written to them, with white input, and that of what reads them. Each
member counts by the share of the D directions that it can fill, min(n, D) / D for n columns, whatever its scale: a
matrix counts 1, a bias 1 / D, and an embedding of 50,000 rows no more than a layer. So no member outweighs the others,
and errors are relative ones, as reports show them. Hidden units: the energy of their rows and of the columns that read
them, each member scaled likewise; gains multiply it, and that of BatchNorm, behind which every channel has one length,
stands in place of the rows. Heads: plain Gram matrices, for there is one writer and one reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from kdplugin.weights.plan import AxisGroup, Piece, ProjectionPlan, Step
from kdplugin.weights.projection.bases import Basis, make_basis
from kdplugin.weights.reading.tensor_source import TensorSource
from kdplugin.weights.steps import computable, run_step

Statistics = dict[str, dict[str, Tensor]]

READERS = 256
"""Of what a layer makes of a stream, up to this many values, evenly spread, say how much each direction is read."""
DOUBLE_UP_TO = 1024
"""Up to this width Gram matrices are summed in float64, which resolves directions of 1e-8 of the largest."""
BLOCK = 256
"""Rows of a Gram matrix that are computed together."""


def make_bases(
    plan: ProjectionPlan, source: TensorSource, moments: Mapping[str, Tensor] | None = None
) -> dict[str, Basis]:
    """Return the basis of every group of a plan.

    Streams come last: only what the chosen hidden units and heads write to them counts.

    Args:
        moments: second moments of activations by group, in place of those from weights: [D, D] of a residual stream,
            [D] of hidden units, [H, S, S] of the values of heads.
    """
    bases: dict[str, Basis] = {}
    for streams in (False, True):
        groups = {name: group for name, group in plan.groups.items() if (group.kind == 'residual') == streams}
        wanted = {n: g for n, g in groups.items() if g.method == 'svd' and g.target_width <= g.source_width}
        measured = gather(plan, source, wanted, bases)
        for name, moment in (moments or {}).items():
            if name in wanted and streams:
                measured[name] = {'gram': moment.double()}
            elif name in wanted:
                kept = {key: value for key, value in measured.get(name, {}).items() if key not in ('gain', 'norm')}
                measured[name] = {**kept, 'out': moment.double()}
        bases |= {name: make_basis(group, measured.get(name)) for name, group in groups.items()}
    return bases


def gather(
    plan: ProjectionPlan, source: TensorSource, groups: Mapping[str, AxisGroup], known: Mapping[str, Basis]
) -> Statistics:
    """Return the statistics of groups; axes of groups with a ``known`` basis are projected first."""
    found: Statistics = {}
    for piece in (piece for entry in plan.entries for piece in entry.pieces if piece.source is not None):
        steps = [step for step in first_projection(piece) if _counts(piece, step, groups)]
        if not steps:
            continue
        tensor = _prepared(piece, source)
        for step in first_projection(piece):
            basis = known.get(step.args['group'])
            if basis is not None:
                tensor = basis.down(step.args['side'])(tensor, step.args['dim'])
        for step in steps:
            name, side = step.args['group'], step.args['side']
            side = _gain_kind(piece, source) if side == 'gain' else side
            for key, value in _measure(groups[name], side, tensor.movedim(step.args['dim'], 0)):
                sums = found.setdefault(name, {})
                sums[key] = sums[key] + value if key in sums else value
    return found


def first_projection(piece: Piece) -> list[Step]:
    """Return the first run of 'project' steps of a piece."""
    steps = list(piece.steps)
    while steps and steps[0].op != 'project':
        steps.pop(0)
    end = next((i for i, step in enumerate(steps) if step.op != 'project'), len(steps))
    return steps[:end]


def _counts(piece: Piece, step: Step, groups: Mapping[str, AxisGroup]) -> bool:
    group, side = groups.get(step.args['group']), step.args['side']
    if group is None or (piece.source, step.args['dim'], side) not in group.members:
        return False
    return side in {'residual': ('out', 'in'), 'heads': ('out', 'in', 'q', 'k', 'o')}.get(
        group.kind, ('out', 'in', 'gain')
    )


def _gain_kind(piece: Piece, source: TensorSource) -> str:
    """Return 'norm' for the gain of BatchNorm, which alone decides a channel's energy, 'var' for its variance."""
    path, _, leaf = str(piece.source).rpartition('.')
    if leaf == 'running_var':
        return 'var'
    return 'norm' if f'{path}.running_var' in source else 'gain'


def _prepared(piece: Piece, source: TensorSource) -> Tensor:
    assert piece.source is not None  # noqa: S101
    tensor = source[piece.source]
    for step in piece.steps:
        if step.op == 'project':
            break
        tensor = run_step(tensor, step, source)
    return computable(tensor)


def _measure(group: AxisGroup, side: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what one member with its axis first adds to the statistics of its group."""
    rows = tensor.reshape(len(tensor), -1)
    if group.kind == 'heads':
        heads = rows.reshape(-1, group.unit, rows.shape[1])
        yield side, (heads @ heads.transpose(1, 2)).double()
        return
    share = min(1.0, rows.shape[1] / len(rows))
    if group.kind == 'residual':
        if side == 'in':
            rows = rows[:, :: -(-rows.shape[1] // READERS)]
        gram = gram_matrix(rows.double() if len(rows) <= DOUBLE_UP_TO else rows).double()
        yield 'gram' if side == 'out' else 'read', gram * (share / gram.trace().clamp_min(1e-30))
    elif side != 'var':
        energies = torch.linalg.vector_norm(rows, dim=1).double().square()
        yield side, energies * (share / energies.sum().clamp_min(1e-30))


def gram_matrix(rows: Tensor) -> Tensor:
    """Return rows @ rows.T [D, D] for rows [D, n], of which only the lower blocks are computed."""
    if rows.shape[1] == 1:
        return rows * rows.T
    lower = rows.new_zeros(len(rows), len(rows))
    for start in range(0, len(rows), BLOCK):
        stop = start + BLOCK
        lower[start:stop, :stop] = rows[start:stop] @ rows[:stop].T
    return lower.tril() + lower.tril(-1).T
