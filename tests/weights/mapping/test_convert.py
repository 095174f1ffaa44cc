"""From pairs to entries: fused and split attention, other layouts, scores, thresholds, positions of another size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from small_nets import fill
from torch import Tensor, nn
from two_vits import IMAGE, FusedVit, SplitVit, by_hand

from kdplugin.weights.apply import apply_plan
from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.mapping.assignment import Match
from kdplugin.weights.mapping.convert import SAME_ROLE, SCORE_WEIGHTS, Converter, resized_positions
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.units import build_units

State = Mapping[str, Tensor]


def mapped(source: nn.Module | State, target: nn.Module, **options: Any) -> ProjectionPlan:
    state = source.state_dict() if isinstance(source, nn.Module) else source
    mapper = WeightMapper.from_state_dict(state, target, options.pop('shape_tolerance', 0.0))
    mapper.suggest_mapping(**options)
    return mapper.plan


def loaded(source: nn.Module | State, target: nn.Module, **options: Any) -> ProjectionPlan:
    """Fill the target strictly from the source."""
    state = source.state_dict() if isinstance(source, nn.Module) else source
    plan = mapped(state, target, **options)
    target.load_state_dict(apply_plan(plan, state).tensors)
    target.eval()
    return plan


def converted(
    source: Mapping[str, tuple[int, ...]],
    target: Mapping[str, tuple[int, ...]],
    matches: Mapping[int, Match],
    **options: Any,
) -> dict[str, Entry]:
    """Return the entries of pairs that are given."""
    converter = Converter(build_units(source), build_units(target), (source, target), matches, **options)
    return {entry.target: entry for entry in converter.entries()}


def pair(source: int, target: int, margin: float = 1.0, rivals: tuple[int, ...] = ()) -> dict[int, Match]:
    return {target: Match(source, target, 0.5, 0.4, margin, rivals, 'why')}


@pytest.mark.parametrize('bias', ['qkv', '', 'qv'])
def test_split_attention_is_fused_to_a_strict_load_with_equal_outputs(bias: str) -> None:
    split, fused = fill(SplitVit(bias=bias)), FusedVit(bias=bias)
    loaded(split, fused)
    wanted = by_hand(split)
    assert {name for name, value in fused.state_dict().items() if not torch.equal(value, wanted[name])} == set()
    with torch.no_grad():
        torch.testing.assert_close(fused(IMAGE), split(IMAGE))


@pytest.mark.parametrize('bias', ['qkv', '', 'qv'])
def test_fused_attention_is_split_to_a_strict_load_with_equal_outputs(bias: str) -> None:
    fused, split = fill(FusedVit(bias=bias)), SplitVit(bias=bias)
    loaded(fused, split)
    wanted = fused.state_dict()
    assert {name for name, value in by_hand(split).items() if not torch.equal(value, wanted[name])} == set()
    with torch.no_grad():
        torch.testing.assert_close(split(IMAGE), fused(IMAGE))


def test_biases_of_q_and_v_alone_fuse_with_zeros_for_k() -> None:
    source, target = fill(FusedVit(bias='qv')), FusedVit(bias='qkv')
    plan = loaded(source, target)
    assert [piece.source for piece in plan['blocks.0.attn.qkv.bias'].pieces] == [
        'blocks.0.attn.q_bias', None, 'blocks.0.attn.v_bias',
    ]  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(target(IMAGE), source(IMAGE))


def test_the_bias_of_k_that_a_target_lacks_is_unused_and_named() -> None:
    """It cancels in the softmax, so the outputs agree all the same."""
    source, target = fill(FusedVit(bias='qkv')), FusedVit(bias='qv')
    plan = loaded(source, target)
    assert plan['blocks.0.attn.q_bias'].sources == ('blocks.0.attn.qkv.bias',)
    with torch.no_grad():
        torch.testing.assert_close(target(IMAGE), source(IMAGE), atol=1e-5, rtol=1e-5)


def test_fused_rows_are_q_then_k_then_v() -> None:
    split, fused = fill(SplitVit(depth=1)), FusedVit(depth=1)
    entry = mapped(split, fused)['blocks.0.attn.qkv.weight']
    assert entry.sources == tuple(f'encoder.layer.0.attention.attention.{x}.weight' for x in ('query', 'key', 'value'))
    assert (entry.kind, entry.join, [piece.steps for piece in entry.pieces]) == ('converted', 0, [()] * 3)


def test_split_parts_are_slices_of_the_fused_tensor() -> None:
    entry = mapped(FusedVit(depth=1), SplitVit(depth=1))['encoder.layer.0.attention.attention.key.weight']
    (piece,) = entry.pieces
    assert (piece.source, [str(step) for step in piece.steps]) == ('blocks.0.attn.qkv.weight', ['narrow(0, 8, 16)'])


def test_fused_to_fused_is_one_whole_tensor() -> None:
    target = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 24, batch_first=True), 1)
    plan = mapped(FusedVit(depth=1), target)
    entry = plan['layers.0.self_attn.in_proj_weight']
    assert (entry.kind, entry.pieces) == ('renamed', (Piece('blocks.0.attn.qkv.weight'),))


def test_gpt2_layout_is_transposed_everywhere_also_where_square() -> None:
    """Conv1D keeps (in, out); ``attn.c_proj`` is square, so its neighbours tell."""
    names = {
        'attn.qkv': 'attn.c_attn',
        'attn.proj': 'attn.c_proj',
        'mlp.fc1': 'mlp.c_fc',
        'mlp.fc2': 'mlp.c_proj',
        'norm1': 'ln_1',
        'norm2': 'ln_2',
    }
    fused = fill(FusedVit(depth=2))
    source = {}
    for name, value in fused.state_dict().items():
        for old, new in names.items():
            if name.startswith('blocks.') and f'.{old}.' in name:
                name, value = name.replace('blocks.', 'h.').replace(old, new), value.T if value.ndim == 2 else value
        source[name] = value
    target = FusedVit(depth=2)
    plan = loaded(source, target)
    assert [step.op for step in plan['blocks.1.attn.proj.weight'].pieces[0].steps] == ['permute']
    assert plan['head.weight'].kind == 'exact'
    with torch.no_grad():
        torch.testing.assert_close(target(IMAGE), fused(IMAGE))
    split = SplitVit(depth=2)
    loaded(source, split)
    with torch.no_grad():
        torch.testing.assert_close(split(IMAGE), fused(IMAGE))


def test_square_layers_among_upright_ones_stay_upright() -> None:
    source = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3))
    target = nn.ModuleDict({'a': nn.Linear(4, 6), 'b': nn.Linear(6, 6), 'c': nn.Linear(6, 3)})
    plan = loaded(source, target)
    assert {entry.kind for entry in plan.entries} == {'renamed'}


def test_one_by_one_convolutions_and_linear_layers_are_the_same() -> None:
    linear = fill(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    conv = nn.Sequential(nn.Conv2d(4, 6, 1), nn.Conv2d(6, 3, 1))
    plan = loaded(linear, conv)
    assert {entry.kind for entry in plan.entries if entry.target.endswith('weight')} == {'converted'}
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        wanted = linear(x.movedim(1, -1)).movedim(-1, 1)
        torch.testing.assert_close(conv(x), wanted)
        back = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
        loaded(conv, back)
        torch.testing.assert_close(back(x.movedim(1, -1)).movedim(-1, 1), wanted)


def test_a_score_is_half_shape_and_three_tenths_name_and_two_tenths_surroundings() -> None:
    shapes = {'a.weight': (4, 3)}, {'b.weight': (4, 3)}
    name = SAME_ROLE + (1 - SAME_ROLE) * 0.4
    assert converted(*shapes, pair(0, 0))['b.weight'].score == pytest.approx(0.5 + 0.3 * name + 0.2 * 0.5, abs=1e-4)
    turned = converted(shapes[0], {'b.weight': (3, 4)}, pair(0, 0))['b.weight']
    assert turned.score == pytest.approx(0.5 * 0.7 + 0.3 * name + 0.2 * 0.5, abs=1e-4)
    assert turned.kind == 'converted'
    same = converted(shapes[0], shapes[0], pair(0, 0))['a.weight']
    assert (same.kind, same.score) == ('exact', pytest.approx(0.5 + 0.3 + 0.1))
    assert SCORE_WEIGHTS == {'shape': 0.5, 'name': 0.3, 'hierarchy': 0.2}


def test_weights_of_the_score_are_relative() -> None:
    shapes = {'a.weight': (4, 3)}, {'b.weight': (4, 3)}
    for factor in (1, 7):
        weights = {'shape': factor, 'name': 0.0, 'hierarchy': factor}
        assert converted(*shapes, pair(0, 0), weights=weights)['b.weight'].score == pytest.approx(0.75)


def test_what_scores_below_the_threshold_is_refused_and_named() -> None:
    entry = converted({'a.weight': (4, 3)}, {'b.weight': (4, 3)}, pair(0, 0), threshold=0.9)['b.weight']
    assert (entry.kind, entry.pieces, entry.alternatives) == ('refused', (), ('a.weight',))
    assert entry.reason == 'the best candidate a.weight scores 0.77, below 0.9'


def test_what_others_fit_as_well_is_refused_and_named() -> None:
    source = {'a.weight': (4, 3), 'c.weight': (4, 3)}
    entry = converted(source, {'b.weight': (4, 3)}, pair(0, 0, margin=0.01, rivals=(1,)))['b.weight']
    assert (entry.kind, entry.alternatives) == ('refused', ('a.weight', 'c.weight'))
    assert entry.reason == 'ambiguous: a.weight, c.weight fit equally well'


def test_what_a_layer_lacks_is_random_with_the_reason() -> None:
    target = {'b.weight': (4, 3), 'b.bias': (4,), 'c.weight': (9, 9)}
    entries = converted({'a.weight': (4, 3), 'c.weight': (8, 9)}, target, pair(0, 0))
    assert {name: entry.kind for name, entry in entries.items()} == {
        'b.weight': 'renamed', 'b.bias': 'random', 'c.weight': 'random',
    }  # fmt: skip
    assert entries['b.bias'].reason == 'a has no such tensor'
    assert entries['c.weight'].reason == 'the source has it with shape (8, 9)'


def test_batch_norm_buffers_come_along() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    fill(source)
    source[1].num_batches_tracked.fill_(7)
    target = nn.ModuleDict({'conv': nn.Conv2d(3, 4, 3), 'norm': nn.BatchNorm2d(4)})
    plan = loaded(source, target)
    assert all(entry.loads for entry in plan.entries)
    for name in ('running_mean', 'running_var', 'num_batches_tracked'):
        assert torch.equal(getattr(target['norm'], name), getattr(source[1], name))


@pytest.mark.parametrize('shape', [(5, 3), (4, 5), (3, 3)])
def test_other_sizes_need_a_tolerance(shape: tuple[int, int]) -> None:
    source, target = {'a.weight': (4, 4)}, {'b.weight': shape}
    refused = converted(source, target, pair(0, 0))['b.weight']
    assert (refused.kind, refused.alternatives) == ('refused', ('a.weight',))
    assert refused.reason == 'a.weight belongs to its layer but has shape (4, 4)'
    assert converted(source, target, pair(0, 0), tolerance=0.25)['b.weight'].kind == 'projected'
    assert converted(source, target, pair(0, 0), tolerance=0.1)['b.weight'].kind == 'refused'


@pytest.mark.parametrize(
    ('old', 'new', 'steps'),
    [
        ((1, 17, 6), (1, 10, 6), ['resize_positions']),
        ((17, 6), (1, 9, 6), ['reshape', 'resize_positions']),
        ((1, 16, 6), (11, 6), ['resize_positions', 'reshape']),
    ],
)
def test_position_tables_are_resized(old: tuple[int, ...], new: tuple[int, ...], steps: list[str]) -> None:
    shapes = {'pos_embed': old}, {'embeddings.position_embeddings': new}
    entry = Entry('embeddings.position_embeddings', new, 'random')
    (resized,) = resized_positions([entry], shapes)
    assert [step.op for step in resized.pieces[0].steps] == steps
    assert (resized.kind, resized.reason) == ('converted', 'position embedding resized')
    plan = ProjectionPlan('a', 'b', (resized,))
    assert apply_plan(plan, {'pos_embed': torch.randn(old)}).tensors[entry.target].shape == new


@pytest.mark.parametrize(
    'source',
    [
        {'pos_embed': (1, 17, 5)},
        {'pos_embed': (1, 24, 6)},
        {'tokens': (1, 17, 6)},
        {'pos_embed': (1, 17, 6), 'pos_embed2': (1, 26, 6)},
    ],
    ids=['another width', 'no square', 'no table', 'two candidates'],
)
def test_what_is_no_position_table_of_another_size_stays(source: dict[str, tuple[int, ...]]) -> None:
    entry = Entry('pos_embed', (1, 10, 6), 'random')
    assert resized_positions([entry], (source, {'pos_embed': (1, 10, 6)})) == [entry]


def test_a_model_for_larger_images_keeps_its_class_token_and_grid() -> None:
    source, target = fill(FusedVit(size=8)), FusedVit(size=12)
    with torch.no_grad():
        source.pos_embed[:, 1:] = source.pos_embed[:, 1:2]
    loaded(source, target)
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])
    torch.testing.assert_close(target.pos_embed[:, 1:], source.pos_embed[:, 1:2].expand(1, 36, 8))
