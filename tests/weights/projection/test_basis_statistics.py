"""What bases are measured on: which members count, how much, and in which order groups are settled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup, Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.projection.bases import make_basis
from kdplugin.weights.projection.basis_statistics import gather, gram_matrix, make_bases
from kdplugin.weights.reading.tensor_source import MemorySource


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def project(dim: int, group: str, side: str) -> Step:
    return Step('project', {'dim': dim, 'group': group, 'side': side})


SOURCE = {
    'up.weight': numbers(6, 4),
    'up.bias': numbers(6, seed=1),
    'down.weight': 100 * numbers(4, 6, seed=2),
    'down.bias': numbers(4, seed=3),
}
STEPS = {
    'up.weight': (project(0, 'hidden', 'out'), project(1, 'stream', 'in')),
    'up.bias': (project(0, 'hidden', 'out'),),
    'down.weight': (project(0, 'stream', 'out'), project(1, 'hidden', 'in')),
    'down.bias': (project(0, 'stream', 'out'),),
}


def plan(members: bool = True, **changed: dict[str, Any]) -> ProjectionPlan:
    found: dict[str, list[tuple[str, int, str]]] = {'hidden': [], 'stream': []}
    for name, steps in STEPS.items():
        for step in steps:
            found[step.args['group']].append((name, step.args['dim'], step.args['side']))
    groups = {
        name: AxisGroup(**{
            'kind': kind, 'source_width': wide, 'target_width': narrow, 'method': 'svd',
            'members': tuple(found[name]) if members else (), **changed.get(name, {})})
        for name, kind, wide, narrow in (('hidden', 'hidden', 6, 3), ('stream', 'residual', 4, 2))
    }  # fmt: skip
    entries = tuple(Entry(n, (1,), 'projected', (Piece(n, steps),)) for n, steps in STEPS.items())
    return ProjectionPlan('teacher', 'student', entries, groups)


def test_a_stream_is_measured_on_its_writers_and_readers_each_alike() -> None:
    """A matrix counts 1 whatever its scale, a bias 1 / D: as the one direction it fills."""
    one = plan()
    measured = gather(one, MemorySource(SOURCE), {'stream': one.groups['stream']}, {})['stream']
    weight, bias = SOURCE['down.weight'].double(), SOURCE['down.bias'].double()
    expected = weight @ weight.T / weight.square().sum() + torch.outer(bias, bias) / bias.square().sum() / 4
    assert set(measured) == {'gram', 'read'}
    assert torch.allclose(measured['gram'], expected)
    reader = SOURCE['up.weight'].double()
    assert torch.allclose(measured['read'], reader.T @ reader / reader.square().sum())


def test_a_stream_that_nobody_writes_is_measured_on_its_readers() -> None:
    one = plan(stream={'members': (('up.weight', 1, 'in'),)})
    basis = make_bases(one, MemorySource(SOURCE))['stream'].inward.dense() * 0.5**0.5
    expected = torch.linalg.svd(
        SOURCE['up.weight'][make_bases(one, MemorySource(SOURCE))['hidden'].out.columns].double()
    )
    rows = expected.Vh[:2]
    assert torch.allclose(basis @ basis.T, rows.T @ rows, atol=1e-6)


def test_hidden_units_are_measured_on_rows_and_columns() -> None:
    one = plan()
    measured = gather(one, MemorySource(SOURCE), {'hidden': one.groups['hidden']}, {})['hidden']
    up, down = SOURCE['up.weight'].double(), SOURCE['down.weight'].double()
    columns = down.square().sum(0) / down.square().sum() * (4 / 6)
    rows = up.square().sum(1) / up.square().sum() * (4 / 6)
    rows = rows + SOURCE['up.bias'].double().square() / SOURCE['up.bias'].double().square().sum() / 6
    assert torch.allclose(measured['in'], columns)
    assert torch.allclose(measured['out'], rows)


@pytest.mark.parametrize('batch_norm', [True, False])
def test_batch_norm_decides_the_energy_of_channels_and_other_gains_multiply_it(batch_norm: bool) -> None:
    gain = torch.tensor([0.1, 5, 0.1, 5, 5, 0.1])
    source = {**SOURCE, 'bn.weight': gain, **({'bn.running_var': torch.ones(6)} if batch_norm else {})}
    source['up.weight'] = torch.diag(torch.tensor([9.0, 1, 9, 2, 3, 9]))[:, :4] + 0.1
    source['down.weight'] = torch.ones(4, 6)
    one = plan()
    members = (*one.groups['hidden'].members, ('bn.weight', 0, 'gain'), ('bn.running_var', 0, 'gain'))
    entries = [Entry(n, (3,), 'projected', (Piece(n, (project(0, 'hidden', 'gain'),)),)) for n in source if 'bn' in n]
    one = replace(
        one, entries=(*one.entries, *entries), groups={'hidden': replace(one.groups['hidden'], members=members)}
    )
    measured = gather(one, MemorySource(source), one.groups, {})['hidden']
    assert ('norm' in measured, 'gain' in measured, 'var' in measured) == (batch_norm, not batch_norm, False)
    key = 'norm' if batch_norm else 'gain'
    assert torch.allclose(measured[key], gain.double().square() / gain.double().square().sum() / 6)
    if batch_norm:
        assert make_basis(one.groups['hidden'], measured).out.columns.tolist() == [1, 3, 4]


def test_the_stream_counts_only_what_the_kept_units_write() -> None:
    """Two of the hidden units are kept; the stream's basis holds what these write, not what the dropped ones did."""
    source = {name: value.clone() for name, value in SOURCE.items()}
    source['up.weight'][[0, 2, 3, 5]] *= 1e-3
    source['up.bias'].mul_(1e-3)
    source['down.bias'].zero_()
    bases = make_bases(plan(hidden={'target_width': 2}), MemorySource(source))
    assert bases['hidden'].out.columns.tolist() == [1, 4]
    basis = bases['stream'].inward.dense() * 0.5**0.5
    written = source['down.weight'][:, [1, 4]].double()
    assert torch.allclose(basis @ basis.T @ written, written, atol=1e-4)


def test_only_members_count() -> None:
    one = plan(stream={'members': (('down.bias', 0, 'out'),), 'target_width': 1})
    basis = make_bases(one, MemorySource(SOURCE))['stream'].out.dense()[0] * 2
    bias = SOURCE['down.bias'].double()
    assert torch.allclose(basis.abs(), bias.abs() / bias.norm(), atol=1e-6)
    with pytest.raises(
        CheckpointError, match=r'Expected tensors to measure the hidden basis of 6 to 3 on but got none'
    ):
        make_bases(plan(members=False), MemorySource(SOURCE))


def test_activations_replace_weights() -> None:
    moments = {'hidden': torch.tensor([0.0, 0, 0, 1, 2, 3]), 'stream': torch.diag(torch.tensor([0.0, 5, 0, 4]))}
    bases = make_bases(plan(), MemorySource(SOURCE), moments)
    assert bases['hidden'].out.columns.tolist() == [3, 4, 5]
    assert torch.equal(bases['stream'].out.dense(), torch.eye(4)[[1, 3]].double() * 0.5**0.5)


def test_heads_are_measured_without_a_scale() -> None:
    step = project(0, 'heads', 'q')
    group = AxisGroup('heads', 6, 3, 'svd', (('up.weight', 0, 'q'), ('up.bias', 0, 'q')), unit=3)
    entries = tuple(Entry(n, (1,), 'projected', (Piece(n, (step,)),)) for n in ('up.weight', 'up.bias'))
    one = ProjectionPlan('teacher', 'student', entries, {'heads': group})
    gram = gather(one, MemorySource(SOURCE), one.groups, {})['heads']['q']
    rows = torch.cat([SOURCE['up.weight'], SOURCE['up.bias'][:, None]], 1).double().unflatten(0, (2, 3))
    assert torch.allclose(gram, rows @ rows.transpose(1, 2), atol=1e-5)


def test_steps_before_the_projection_are_carried_out() -> None:
    steps = (Step('permute', {'dims': [1, 0]}), Step('scale', {'factor': 2.0}), project(0, 'stream', 'out'))
    group = AxisGroup('residual', 4, 2, 'svd', (('up.weight', 0, 'out'),))
    entry = Entry('w', (2, 6), 'projected', (Piece('up.weight', steps),))
    one = ProjectionPlan('teacher', 'student', (entry,), {'stream': group})
    gram = gather(one, MemorySource(SOURCE), one.groups, {})['stream']['gram']
    weight = SOURCE['up.weight'].double()
    assert torch.allclose(gram, weight.T @ weight / weight.square().sum())


@pytest.mark.parametrize('shape', [(1, 5), (256, 3), (300, 40), (700, 1)])
def test_a_gram_matrix_from_its_lower_blocks(shape: tuple[int, int]) -> None:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gram = gram_matrix(rows)
    assert torch.allclose(gram, rows @ rows.T, atol=1e-12)
    assert torch.equal(gram, gram.T)


def test_of_wide_readers_evenly_spread_rows_are_enough() -> None:
    """The basis from 2,000 rows of a reader is nearly the one from 250 of them, and the cost is an eighth."""
    wide = numbers(2000, 16, seed=4) * torch.logspace(0, -1, 16)
    source = {'read.weight': wide, 'write.weight': numbers(16, 64, seed=5)}
    members = (('read.weight', 1, 'in'), ('write.weight', 0, 'out'))
    group = AxisGroup('residual', 16, 4, 'svd', members)
    entries = (
        Entry('read.weight', (2000, 4), 'projected', (Piece('read.weight', (project(1, 'stream', 'in'),)),)),
        Entry('write.weight', (4, 64), 'projected', (Piece('write.weight', (project(0, 'stream', 'out'),)),)),
    )
    one = ProjectionPlan('teacher', 'student', entries, {'stream': group})
    read = gather(one, MemorySource(source), {'stream': group}, {})['stream']['read']
    some = wide[::8].double()
    assert torch.allclose(read, some.T @ some / some.square().sum(), atol=1e-6)
    whole = wide.double().T @ wide.double() / wide.double().square().sum()
    assert (read - whole).norm() < 0.15 * whole.norm()
