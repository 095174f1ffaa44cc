"""Equal values under other names: as they are, transposed, or with rows and columns in another order."""

from __future__ import annotations

import pytest
import torch
from small_nets import fill
from torch import Tensor
from two_vits import IMAGE, FusedVit, SplitVit, by_hand

from kdplugin.weights.apply import apply_plan
from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.mapping.values import LIMIT, SAME, arranged, arrangement, fingerprint, readable, value_anchors
from kdplugin.weights.plan import Entry, Piece
from kdplugin.weights.reading.tensor_source import MemorySource
from kdplugin.weights.steps import run_step
from kdplugin.weights.units import build_units

TALL = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
CUBE = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def rearranged(first: Tensor, second: Tensor) -> Tensor | None:
    """Return the first tensor after the steps that are found, or None."""
    steps = arrangement(first, second)
    for step in steps or ():
        first = run_step(first, step, MemorySource({}))
    return None if steps is None else first


def pairs(source: dict[str, Tensor], target: dict[str, Tensor]) -> dict[str, str]:
    one, two = (build_units({name: tuple(value.shape) for name, value in side.items()}) for side in (source, target))
    found = value_anchors(one, two, (source.__getitem__, target.__getitem__))
    return {two[match.target].main.name: one[match.source].main.name for match in found}


@pytest.mark.parametrize(
    ('first', 'second', 'operations'),
    [
        (TALL, TALL, []),
        (TALL, TALL.T, ['permute']),
        (TALL[:3], TALL[:3].T, ['permute']),
        (TALL[:, :, None, None], TALL, ['reshape']),
        (TALL[None], TALL, ['reshape']),
        (TALL[:, :, None, None], TALL.T, ['reshape', 'permute']),
        (TALL, TALL.T[:, :, None, None], ['permute', 'reshape']),
        (CUBE, CUBE.transpose(0, 1), ['permute']),
        (TALL, TALL[[2, 0, 1, 4, 3]], ['index']),
        (TALL, TALL[:, [2, 0, 1]], ['index']),
        (TALL, TALL[[4, 3, 2, 1, 0]][:, [1, 2, 0]], ['index', 'index']),
        (CUBE, CUBE[[1, 0, 3, 2]][:, [2, 1, 0]], ['index', 'index']),
        (TALL[:, 0], TALL[[3, 1, 0, 2, 4], 0], ['index']),
    ],
)
def test_the_steps_make_the_second_of_the_first(first: Tensor, second: Tensor, operations: list[str]) -> None:
    assert [step.op for step in arrangement(first, second) or ()] == operations
    assert torch.equal(rearranged(first, second), second)


@pytest.mark.parametrize('second', [TALL + 1e-6, -TALL, TALL[:4], TALL.flip(0) * 1.0001, TALL.flatten()])
def test_other_values_have_no_arrangement(second: Tensor) -> None:
    assert arrangement(TALL, second) is None


def test_the_same_sums_are_not_enough() -> None:
    """Rows of equal sums in another order inside: the values are compared at last."""
    first, second = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[2.0, 1.0], [3.0, 4.0]])
    assert arrangement(first, second) is None


def test_fingerprints_do_not_depend_on_order() -> None:
    shuffled = CUBE.flatten()[torch.randperm(CUBE.numel())].reshape(3, 4, 4)
    assert fingerprint(CUBE) == fingerprint(shuffled) != fingerprint(CUBE * 1.001)
    assert fingerprint(CUBE) == fingerprint(CUBE.double())


@pytest.mark.parametrize(
    'tensor', [torch.ones(4), torch.zeros(3, 3), torch.arange(4), torch.randn(1), torch.empty(3, device='meta')]
)
def test_constant_and_unreadable_tensors_have_none(tensor: Tensor) -> None:
    assert fingerprint(tensor) is None


def test_units_pair_by_values_alone() -> None:
    source = {'a.weight': TALL, 'b.weight': CUBE, 'n.weight': torch.ones(3)}
    target = {'x.weight': CUBE, 'y.weight': TALL.T.contiguous(), 'm.weight': torch.ones(3)}
    assert pairs(source, target) == {'x.weight': 'b.weight', 'y.weight': 'a.weight'}


def test_values_held_twice_prove_nothing() -> None:
    assert pairs({'a.weight': TALL, 'b.weight': TALL.clone()}, {'x.weight': TALL}) == {}
    assert pairs({'a.weight': TALL}, {'x.weight': TALL, 'y.weight': TALL.clone()}) == {}


def test_halves_of_fused_layers_are_compared() -> None:
    fused = torch.randn(12, 4)
    target = {f'self.{name}.weight': part for name, part in zip(('query', 'key', 'value'), fused.chunk(3), strict=True)}
    assert pairs({'attn.qkv.weight': fused}, target) == {
        f'self.{name}.weight': 'attn.qkv.weight' for name in ('query', 'key', 'value')
    }


def test_arranged_gives_steps_to_what_was_found_by_values_alone() -> None:
    read = ({'a': TALL, 'b': CUBE}.__getitem__, {'x': TALL.flip(0), 'y': CUBE.flip(0)}.__getitem__)
    entries = (
        Entry('x', (5, 3), 'renamed', (Piece('a'),), reason=SAME),
        Entry('y', (4, 3, 2, 2), 'renamed', (Piece('b'),), reason='left over'),
    )
    turned, kept = arranged(entries, read)
    assert (turned.kind, [step.op for step in turned.pieces[0].steps]) == ('converted', ['index'])
    assert kept is entries[1]


def test_sources_of_a_size_that_takes_too_long_are_not_read() -> None:
    assert readable({'a': (LIMIT // 4, 4)})
    assert not readable({'a': (LIMIT // 4, 4), 'b': (1,)})


@pytest.mark.parametrize('layers', [[0, 2, 4], [1, 3], [5, 0, 3]])
def test_blocks_of_a_deeper_stack_are_found_by_value(layers: list[int]) -> None:
    """The student holds some blocks of the teacher under other names, not those that ``layers`` would choose."""
    teacher = fill(SplitVit(depth=6), 1)
    student = FusedVit(depth=len(layers))
    state = by_hand(teacher)
    inside = {
        f'blocks.{i}.{name.split(".", 2)[2]}': value
        for i, old in enumerate(layers)
        for name, value in state.items()
        if name.startswith(f'blocks.{old}.')
    }
    student.load_state_dict(inside | {name: value for name, value in state.items() if not name.startswith('blocks.')})
    mapper = WeightMapper(teacher, student)
    mapper.suggest_mapping()
    got = apply_plan(mapper.plan, teacher.state_dict()).tensors
    assert got.keys() == student.state_dict().keys()
    assert all(torch.equal(got[name], value) for name, value in student.state_dict().items())
    wrong = [e for e in mapper.plan.entries if e.target.endswith('attn.proj.weight')]
    assert [e.sources[0] for e in wrong] == [f'encoder.layer.{i}.attention.output.dense.weight' for i in layers]


def test_the_models_of_these_tests_compute_the_same() -> None:
    split, fused = fill(SplitVit()), FusedVit()
    fused.load_state_dict(by_hand(split))
    with torch.no_grad():
        torch.testing.assert_close(fused.eval()(IMAGE), split(IMAGE))
