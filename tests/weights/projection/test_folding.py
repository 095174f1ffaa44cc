"""Gains and biases of norms move into the layers that read them; what cannot move is said."""

from __future__ import annotations

import pytest
import torch
import torchvision
from small_nets import Vit, fill, projected, same_names
from torch import nn

from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.projection.axis_groups import with_projection


def plan_of(wide: nn.Module, narrow: nn.Module, **options: object) -> ProjectionPlan:
    return with_projection(same_names(wide.state_dict(), narrow.state_dict()), wide.state_dict(), **options)


def steps(plan: ProjectionPlan, name: str, piece: int = 0) -> list[str]:
    return [str(step) for step in plan[name].pieces[piece].steps]


def test_readers_take_over_gain_and_bias() -> None:
    plan = plan_of(Vit(32), Vit(16))
    assert steps(plan, 'blocks.1.mlp.w1.weight') == ['multiply(1, blocks.1.norm2.weight)', 'project(1, stream.32, in)']
    assert steps(plan, 'blocks.1.mlp.w1.bias') == ['add_product(blocks.1.mlp.w1.weight, blocks.1.norm2.bias, None)']
    assert steps(plan, 'blocks.0.attn.qkv.bias', 1) == [
        'narrow(0, 32, 64)', 'add_product(blocks.0.attn.qkv.weight, blocks.0.norm1.bias, [32, 64])']  # fmt: skip
    assert steps(plan, 'head.weight') == ['multiply(1, norm.weight)', 'project(1, stream.32, in)']
    assert steps(plan, 'norm.bias') == ['fill([16], 0.0)']


def test_writers_take_over_layer_scale() -> None:
    plan = plan_of(Vit(32, scale=True), Vit(16, scale=True))
    assert steps(plan, 'blocks.0.mlp.w3.bias')[0] == 'multiply(0, blocks.0.ls2.gamma)'
    assert steps(plan, 'blocks.0.attn.proj.weight')[0] == 'multiply(0, blocks.0.ls1.gamma)'
    assert steps(plan, 'blocks.0.ls1.gamma') == ['fill([16], 1.0)']


@pytest.mark.parametrize('method', ['truncate', 'average'])
def test_nothing_is_folded_without_a_rotation(method: str) -> None:
    plan = plan_of(Vit(32), Vit(16), method=method)
    assert {step.op for entry in plan.entries for piece in entry.pieces for step in piece.steps} <= {
        'project',
        'narrow',
    }


@torch.no_grad()
def test_the_isometry_of_a_wider_stream_is_exact() -> None:
    """As LayerNorm has a bias here, all of it has to be folded for the outputs to agree."""
    small, wide = fill(Vit(16, scale=True)), Vit(24, scale=True).eval()
    tokens = torch.randn(2, 7, 6)
    plan, _ = projected(small, wide)
    assert plan.groups['stream.16'].method == 'svd'
    assert torch.allclose(wide(tokens), small(tokens), atol=1e-5)


def test_a_bias_that_no_reader_can_take_is_said_to_be_lost() -> None:
    wide, narrow = Vit(32, fused=False), Vit(16, fused=False)
    for model in (wide, narrow):
        for block in model.blocks:
            block.attn.k_proj.bias = None
    (note,) = plan_of(wide, narrow).notes
    assert note == (
        'blocks.0.attn.k has no bias to take over blocks.0.norm1.bias of the norm before it: lost, which softmax '
        'ignores unless there are rotary embeddings (and 1 more of the kind)'
    )


def test_a_reader_in_another_layout_cannot_take_a_bias() -> None:
    wide, narrow = Vit(32), Vit(16)
    source = wide.state_dict()
    source['head.weight'] = source['head.weight'].T.contiguous()
    plan = same_names(wide.state_dict(), narrow.state_dict())
    entry = plan['head.weight']
    turned = Piece('head.weight', (Step('permute', {'dims': [1, 0]}),))
    plan = with_projection(plan.replaced(Entry(entry.target, entry.shape, 'projected', (turned,))), source)
    assert 'head is kept in another layout: norm.bias of the norm before it is lost' in plan.notes
    assert steps(plan, 'head.weight') == ['permute([1, 0])', 'multiply(1, norm.weight)', 'project(1, stream.32, in)']


def test_a_norm_that_nothing_reads_keeps_its_nearest_diagonal() -> None:
    wide, narrow = fill(Vit(32)), Vit(16)
    source = {name: value for name, value in wide.state_dict().items() if not name.startswith('head')}
    plan = with_projection(same_names(source, narrow.state_dict()), source)
    assert steps(plan, 'norm.weight') == ['project(0, stream.32, gain)']
    assert plan.notes == ('norm: no reader takes over its gain; it keeps the nearest diagonal, approximately',)
    gain = apply_plan(plan, source).tensors['norm.weight']
    assert abs(gain.mean() - source['norm.weight'].mean()) < 0.1


def test_a_norm_at_the_beginning_is_not_taken_for_the_one_before_the_head() -> None:
    """Where the final norm is not loaded, the head reads a stream that no loaded norm stands before."""
    wide, narrow = (torchvision.models.SwinTransformer([4, 4], w, [2], [w // 8], [4, 4]) for w in (16, 8))
    source = {name: value for name, value in wide.state_dict().items() if not name.startswith('norm.')}
    plan = with_projection(same_names(source, narrow.state_dict()), source)
    assert steps(plan, 'head.weight') == ['project(1, stream.16, in)']


@torch.no_grad()
def test_alphabetical_targets_are_folded_alike() -> None:
    wide, narrow = fill(Vit(32)), Vit(16)
    target = dict(sorted(narrow.state_dict().items()))
    plan = with_projection(same_names(wide.state_dict(), target), wide.state_dict())
    same = plan_of(wide, narrow)
    assert {e.target: e.pieces for e in plan.entries} == {e.target: e.pieces for e in same.entries}


def test_a_norm_behind_the_patch_embedding_hands_its_gain_to_it() -> None:
    wide, narrow = (torchvision.models.SwinTransformer([4, 4], w, [2, 2], [w // 8, w // 4], [4, 4]) for w in (16, 8))
    plan = plan_of(wide, narrow)
    assert steps(plan, 'features.0.0.weight') == [
        'centre(0)', 'multiply(0, features.0.2.weight)', 'project(0, stream.16, out)']  # fmt: skip
    assert steps(plan, 'features.2.norm.bias')[0] == 'divide(0, features.2.norm.weight)'
    assert any('features.0.2: features.0.0 takes over its gain' in note for note in plan.notes)
    assert any('features.2.norm: its readers have no bias' in note for note in plan.notes)
