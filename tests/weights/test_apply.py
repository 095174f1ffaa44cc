"""Laws of apply: identity copies bits, twice is the same, JSON is the same, the teacher stays as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.apply import apply_plan, stream_plan
from kdplugin.weights.plan import AxisGroup, Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.projection.basis_statistics import make_bases
from kdplugin.weights.reading.io import hash_tensors
from kdplugin.weights.reading.tensor_source import MemorySource


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def project(dim: int, group: str, side: str) -> Step:
    return Step('project', {'dim': dim, 'group': group, 'side': side})


SOURCE = {
    'up.weight': numbers(6, 4),
    'up.bias': numbers(6, seed=1).half(),
    'down.weight': numbers(4, 6, seed=2).bfloat16(),
    'count': torch.tensor(2**62 + 1),
}


def plan(method: str = 'svd', **changed: Any) -> ProjectionPlan:
    hidden = AxisGroup('hidden', 6, 3, method, (('up.weight', 0, 'out'), ('down.weight', 1, 'in')))
    stream = AxisGroup('residual', 4, 2, method, (('up.weight', 1, 'in'), ('down.weight', 0, 'out')), centred=True)
    up = (project(0, 'hidden', 'out'), project(1, 'stream', 'in'))
    down = (project(1, 'hidden', 'in'), project(0, 'stream', 'out'))
    entries = (
        Entry('a', (3, 2), 'projected', (Piece('up.weight', up),)),
        Entry('b', (3,), 'projected', (Piece('up.bias', up[:1]),)),
        Entry('c', (2, 3), 'projected', (Piece('down.weight', down),)),
        Entry('n', (), 'renamed', (Piece('count'),)),
        Entry('r', (9,), 'random', reason='nothing fits'),
        Entry('z', (7, 4), 'converted', (Piece('up.weight'), Piece(None, (), (1, 4))), 0),
    )
    return ProjectionPlan('teacher', 'student', entries, {'hidden': hidden, 'stream': stream}, **changed)


def test_a_projection_is_a_w_b() -> None:
    applied = apply_plan(plan('average'), SOURCE)
    mean, double = torch.eye(3).repeat_interleave(2, 1) / 2, torch.eye(2).repeat_interleave(2, 0)
    assert torch.allclose(applied.tensors['a'], mean @ SOURCE['up.weight'] @ double, atol=1e-6)
    assert torch.allclose(applied.tensors['b'].float(), mean @ SOURCE['up.bias'].float(), atol=1e-3)
    assert torch.equal(applied.tensors['z'], torch.cat([SOURCE['up.weight'], torch.zeros(1, 4)]))
    assert list(applied.tensors) == ['a', 'b', 'c', 'n', 'z']


@pytest.mark.parametrize(
    'methods', [('svd', 'svd'), ('truncate', 'average'), ('average', 'truncate'), ('average', 'svd')]
)
def test_the_error_is_that_of_the_way_back(methods: tuple[str, str]) -> None:
    """Whether it was found by two norms, by the way back, or by both, one for each axis."""
    mixed = plan(methods[0])
    other = plan(methods[1]).groups['stream']
    mixed = replace(mixed, groups={**mixed.groups, 'stream': other})
    bases = make_bases(mixed, MemorySource(SOURCE))
    applied = apply_plan(mixed, SOURCE)
    source = SOURCE['up.weight']
    back = bases['stream'].up('in')(bases['hidden'].up('out')(applied.tensors['a'], 0), 1)
    assert applied.errors['a'] == pytest.approx(float((source - back).norm() / source.norm()), rel=1e-4)


def test_an_error_too_small_for_two_norms_takes_the_way_back() -> None:
    tensor = torch.tensor([1.0, 0.0, 1e-3])
    groups = {'g': AxisGroup('hidden', 3, 2, 'truncate', ())}
    entry = Entry('w', (2,), 'projected', (Piece('w', (project(0, 'g', 'out'),)),))
    applied = apply_plan(ProjectionPlan('t', 's', (entry,), groups), {'w': tensor})
    assert applied.errors['w'] == pytest.approx(1e-3, rel=1e-5)


def test_twice_is_the_same_and_so_is_the_plan_from_json() -> None:
    first = apply_plan(plan(), SOURCE).tensors
    again = apply_plan(plan(), SOURCE).tensors
    assert hash_tensors(first) == hash_tensors(again)
    assert hash_tensors(first) == hash_tensors(apply_plan(ProjectionPlan.from_json(plan().to_json()), SOURCE).tensors)


def test_the_teacher_stays_as_it_was() -> None:
    before = hash_tensors(SOURCE)
    applied = apply_plan(plan(), SOURCE)
    for tensor in applied.tensors.values():
        tensor.zero_()
    assert hash_tensors(SOURCE) == before


def test_identity_is_an_exact_copy() -> None:
    entries = tuple(Entry(name, tuple(value.shape), 'exact', (Piece(name),)) for name, value in SOURCE.items())
    applied = apply_plan(ProjectionPlan('teacher', 'student', entries), SOURCE)
    assert hash_tensors(applied.tensors) == hash_tensors(SOURCE)
    assert set(applied.errors.values()) == {0.0}
    assert all(applied.tensors[name].data_ptr() != value.data_ptr() for name, value in SOURCE.items())


@pytest.mark.parametrize('method', ['truncate', 'average'])
def test_projection_to_the_same_width_is_exact(method: str) -> None:
    group = AxisGroup('hidden', 6, 6, method, ())
    entry = Entry('a', (6, 4), 'projected', (Piece('up.weight', (project(0, 'h', 'out'),)),))
    applied = apply_plan(ProjectionPlan('teacher', 'student', (entry,), {'h': group}), SOURCE)
    assert torch.equal(applied.tensors['a'], SOURCE['up.weight'])
    assert applied.errors == {'a': 0.0}


def test_the_error_is_what_the_width_cannot_hold() -> None:
    applied = apply_plan(plan('truncate'), SOURCE)
    kept = SOURCE['up.weight'][:3, :2].norm() / SOURCE['up.weight'].norm()
    assert applied.errors['a'] == pytest.approx(math.sqrt(1 - kept**2), abs=1e-6)
    assert applied.errors['n'] == applied.errors['z'] == 0.0
    low = {**SOURCE, 'down.weight': numbers(4, 2)[:, :1] @ numbers(1, 6, seed=5), 'up.weight': numbers(6, 4)}
    stream = AxisGroup('residual', 4, 2, 'svd', (('down.weight', 0, 'out'),))
    entry = Entry('c', (2, 6), 'projected', (Piece('down.weight', (project(0, 'stream', 'out'),)),))
    assert apply_plan(ProjectionPlan('t', 's', (entry,), {'stream': stream}), low).errors['c'] < 1e-6


def test_errors_of_pieces_add_up_by_energy() -> None:
    group = AxisGroup('hidden', 6, 3, 'truncate', ())
    pieces = (Piece('up.weight', (project(0, 'h', 'out'),)), Piece('up.weight'))
    entry = Entry('a', (9, 4), 'projected', pieces, 0)
    applied = apply_plan(ProjectionPlan('teacher', 'student', (entry,), {'h': group}), SOURCE)
    lost, total = SOURCE['up.weight'][3:].square().sum(), 2 * SOURCE['up.weight'].square().sum()
    assert applied.errors['a'] == pytest.approx(math.sqrt(lost / total), abs=1e-6)


def test_types_are_the_sources_or_as_asked() -> None:
    applied = apply_plan(plan(), SOURCE, target_dtypes={'a': torch.bfloat16, 'c': torch.float32})
    assert {name: tensor.dtype for name, tensor in applied.tensors.items()} == {
        'a': torch.bfloat16, 'b': torch.float16, 'c': torch.float32, 'n': torch.int64, 'z': torch.float32}  # fmt: skip
    exact = apply_plan(plan(), SOURCE).tensors['a']
    assert torch.equal(applied.tensors['a'], exact.bfloat16())


def test_tensors_come_one_at_a_time_and_are_read_when_needed() -> None:
    class Watched(MemorySource):
        read: list[str] = []

        def __getitem__(self, key: str) -> Tensor:
            self.read.append(key)
            return super().__getitem__(key)

    source = Watched(SOURCE)
    stream = stream_plan(plan('truncate'), source)
    assert next(stream).name == 'a'
    assert source.read == ['up.weight']


def test_activations_can_choose() -> None:
    moments = {'hidden': torch.tensor([0.0, 0, 0, 1, 2, 3])}
    chosen = apply_plan(plan(), {**SOURCE, 'down.weight': torch.ones(4, 6)}, moments=moments).tensors['b']
    assert torch.equal(chosen, SOURCE['up.bias'][3:])


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'up.bias': torch.full((6,), math.nan)}, r'b: Expected finite weights but got NaN or infinity in up.bias'),
        ({'count': torch.tensor(math.inf)}, r'n: Expected finite weights but got NaN or infinity in count'),
        (
            {'down.weight': torch.zeros(4, 6).to(torch.float8_e5m2)},
            r'Expected plain numbers in down.weight of the state '
            r'dict but got torch.float8_e5m2\. Use the checkpoint from before quantisation',
        ),
        (
            {'up.bias': torch.zeros(6, dtype=torch.int8)},
            r'b: Expected floating numbers for project\(0, hidden, out\) but '
            r'got torch.int8\. Correct the plan',
        ),
        (
            {'up.bias': torch.zeros(5)},
            r'b: Expected axis 0 to be 6 wide for project\(0, hidden, out\) but got shape \(5,\)',
        ),
    ],
)
def test_sources_that_cannot_be(changed: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        apply_plan(plan('truncate'), {**SOURCE, **changed})


def test_numbers_do_not_change_their_kind() -> None:
    with pytest.raises(
        CheckpointError, match=r'Expected torch.float32 for n but got torch.int64 from count\. Dequantise'
    ):
        apply_plan(plan('truncate'), SOURCE, target_dtypes={'n': torch.float32})


def test_values_beyond_half_precision_are_named() -> None:
    source = {**SOURCE, 'up.weight': torch.full((6, 4), 1e6)}
    with pytest.raises(
        CheckpointError, match=r'Expected values of a that fit torch.float16 but got larger ones\. Use bf'
    ):
        apply_plan(plan('truncate'), source, target_dtypes={'a': torch.float16})
