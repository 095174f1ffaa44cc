"""Activations measure what weights only suppose: where the stream goes, and which layers change it."""

from __future__ import annotations

import pytest
import torch
from small_nets import PostNorm, Vit, fill, same_names
from torch import Tensor, nn

from kdplugin.errors import CheckpointError, PathError
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axis_groups import with_projection
from kdplugin.weights.projection.layers import choose_layers
from kdplugin.weights.projection.moments import layer_similarity, measure_moments

BATCHES = [torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(i)) for i in range(2)]


def planned(wide: nn.Module, narrow: nn.Module) -> ProjectionPlan:
    return with_projection(same_names(wide.state_dict(), narrow.state_dict()), wide.state_dict(), head_dim=8)


@torch.no_grad()
def test_moments_are_those_of_the_inputs() -> None:
    model = fill(Vit(32))
    moments = measure_moments(model, planned(model, Vit(16, heads=2, hidden=24)), BATCHES)
    assert {name: tuple(moment.shape) for name, moment in moments.items()} == {
        'stream.32': (32, 32), **{f'blocks.{i}.attn.heads': (4, 8, 8) for i in (0, 1)},
        **{f'blocks.{i}.mlp.hidden': (48,) for i in (0, 1)}}  # fmt: skip
    seen: list[Tensor] = []
    model.blocks[1].mlp.w3.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for batch in BATCHES:
        model(batch)
    energy = torch.cat(seen).flatten(0, 1).square().sum(0)
    assert torch.allclose(moments['blocks.1.mlp.hidden'].float(), energy / energy.sum(), atol=1e-6)


@torch.no_grad()
def test_a_stream_that_data_keeps_low_is_kept_whole_where_weights_do_not_show_it() -> None:
    """The weights write to all 32 dimensions, but this data reaches six of them: activations know."""
    teacher = fill(Vit(32, norm='rms', depth=1))
    for name, value in teacher.state_dict().items():
        if name == 'pos_embed' or name.endswith(('proj.bias', 'w3.bias', 'w3.weight', 'proj.weight', 'embed.bias')):
            value.zero_()
    teacher.blocks[0].mlp.w3.weight.copy_(torch.randn(32, 48, generator=torch.Generator().manual_seed(3)))
    teacher.blocks[0].mlp.w1.bias.fill_(-100.0)  # GELU gives zero: what w3 would write never comes
    student = Vit(6, heads=4, norm='rms', depth=1).eval()
    plan = planned(teacher, student)
    difference = {}
    for name, moments in (('weights', None), ('activations', measure_moments(teacher, plan, BATCHES))):
        student.load_state_dict(apply_plan(plan, teacher.state_dict(), moments=moments).tensors)
        difference[name] = float((student(BATCHES[0]) - teacher(BATCHES[0])).abs().max())
    assert difference['activations'] < 1e-4
    assert difference['weights'] > 1e-2


def test_the_model_is_left_as_it_was() -> None:
    model = fill(PostNorm(32, 4)).train()
    plan = planned(model, PostNorm(16, 2))
    moments = measure_moments(model, plan, BATCHES)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(name.endswith('heads') for name in moments)  # MultiheadAttention does not call its out_proj
    layer_similarity(model, 'layers', BATCHES)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_measured_is_an_error() -> None:
    model = fill(Vit(32))
    with pytest.raises(
        CheckpointError, match=r'Expected the layers of 5 axis groups to run but none did\. Give batches'
    ):
        measure_moments(model, planned(model, Vit(16, heads=2, hidden=24)), [])


@torch.no_grad()
def test_layers_that_do_nothing_are_most_alike_and_go_first() -> None:
    model = fill(Vit(32, depth=4))
    for layer in (model.blocks[1].attn.proj, model.blocks[1].mlp.w3):
        layer.weight.zero_()
        layer.bias.zero_()
    alike = layer_similarity(model, 'blocks', BATCHES)
    assert alike[1] == pytest.approx(1, abs=1e-5)
    assert (alike[[0, 2, 3]] < 0.99).all()
    assert choose_layers(4, 3, 'similarity', alike) == (0, 2, 3)


def test_stacks_that_cannot_be_measured() -> None:
    model = fill(Vit(32))
    with pytest.raises(PathError, match=r"Expected a module path of the source but got 'layers'"):
        layer_similarity(model, 'layers', BATCHES)
    with pytest.raises(
        CheckpointError, match=r'Expected each layer of blocks to run .* but blocks.0, blocks.1 did not'
    ):
        layer_similarity(model, 'blocks', [])
