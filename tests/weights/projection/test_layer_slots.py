"""Layers of a plan: fused attention is taken apart where it changes, and shapes are known on both sides."""

from __future__ import annotations

import pytest
import torch
from small_nets import same_names
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.plan_shapes import MetaSource
from kdplugin.weights.projection.layer_slots import Layer, read_layers
from kdplugin.weights.reading.tensor_source import MemorySource


def empty(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace('__', '.'): torch.empty(shape, device='meta') for name, shape in shapes.items()}


def layers_of(source: dict[str, Tensor], target: dict[str, Tensor]) -> tuple[ProjectionPlan, dict[str, Layer]]:
    plan, layers = read_layers(same_names(source, target), MetaSource(MemorySource(source)))
    return plan, {layer.path: layer for layer in layers}


def test_fused_attention_that_changes_is_taken_apart() -> None:
    source = empty(attn__qkv__weight=(12, 4), attn__qkv__bias=(12,), fc__weight=(3, 4))
    plan, layers = layers_of(source, empty(attn__qkv__weight=(6, 4), attn__qkv__bias=(6,), fc__weight=(3, 4)))
    assert list(layers) == ['attn.q', 'attn.k', 'attn.v', 'fc']
    key = layers['attn.k']
    assert (key.part, key.inputs, key.outputs) == ('k', (4, 4), (4, 2))
    assert str(plan['attn.qkv.bias'].pieces[2].steps[0]) == 'narrow(0, 8, 12)'
    assert plan['attn.qkv.weight'].join == 0


def test_fused_attention_whose_input_changes_keeps_weight_and_bias_together() -> None:
    source = empty(attn__in_proj_weight=(12, 4), attn__in_proj_bias=(12,))
    plan, layers = layers_of(source, empty(attn__in_proj_weight=(12, 2), attn__in_proj_bias=(12,)))
    assert set(layers['attn.v'].tensors) == {'weight', 'bias'}
    assert len(plan['attn.in_proj_bias'].pieces) == 3


def test_what_does_not_change_stays_whole() -> None:
    source = empty(attn__qkv__weight=(12, 4))
    plan, layers = layers_of(source, source)
    assert list(layers) == ['attn.qkv']
    assert plan == same_names(source, source)


def test_bias_of_q_on_the_attention_module_belongs_to_q() -> None:
    source = empty(attn__q_bias=(4,), attn__q_proj__weight=(4, 4))
    _, layers = layers_of(source, empty(attn__q_bias=(2,), attn__q_proj__weight=(2, 2)))
    assert set(layers['attn.q'].tensors) == {'weight', 'bias'}


def test_kinds_of_layers() -> None:
    shapes = empty(
        blocks__0__norm1__weight=(4,), blocks__0__norm1__bias=(4,), blocks__0__ls1__gamma=(4,), blocks__0__gamma_2=(4,),
        features__2__weight=(4,), features__2__bias=(4,), bn__weight=(4,), bn__running_mean=(4,), pos_embed=(1, 7, 4),
        cls_token=(1, 1, 4), query_embed__weight=(9, 4), conv__weight=(4, 3, 2, 2), fc__weight=(3, 4), fc__bias=(3,),
        words__q_proj__weight=(4, 4), layer_scale=(4, 1, 1), one__weight=(1, 4), one__bias=(1,),
    )  # fmt: skip
    _, layers = layers_of(shapes, shapes)
    found = {
        kind: {path for path, layer in layers.items() if getattr(layer, f'is_{kind}')}
        for kind in ('norm', 'scale', 'table', 'matrix')
    }
    assert found == {
        'norm': {'blocks.0.norm1', 'features.2', 'bn'},
        'scale': {'blocks.0.ls1', 'blocks.0.gamma_2', 'layer_scale'},
        'table': {'pos_embed', 'cls_token', 'query_embed'},
        'matrix': {'conv', 'fc', 'words.q', 'one'},
    }


def test_alphabetical_files_are_read_in_natural_order() -> None:
    names = ['b.10.bias', 'b.10.weight', 'b.2.bias', 'b.2.weight']
    source = {name: torch.empty(4, device='meta') for name in names}
    assert list(layers_of(source, source)[1]) == ['b.2', 'b.10']


def test_a_joined_axis_is_shared_out_in_proportion() -> None:
    source = MemorySource(empty(a=(6, 4), b=(3, 4)))
    entry = Entry('fc.weight', (6, 4), 'projected', (Piece('a'), Piece('b')), 0)
    _, layers = read_layers(ProjectionPlan('t', 's', (entry,)), MetaSource(source))
    assert [layer.weight.new for layer in layers] == [(4, 4), (2, 4)]
    with pytest.raises(CheckpointError, match=r'Expected fc.weight of shape \(5, 4\) to hold its pieces in proportion'):
        read_layers(
            ProjectionPlan('t', 's', (Entry('fc.weight', (5, 4), 'projected', entry.pieces, 0),)), MetaSource(source)
        )


def test_another_number_of_axes_is_refused() -> None:
    source = MetaSource(MemorySource(empty(a=(6, 4))))
    entry = Entry('fc.weight', (6,), 'projected', (Piece('a', (Step('scale', {'factor': 2.0}),)),))
    with pytest.raises(CheckpointError, match=r'Expected pieces of 1 axes for fc.weight but got \(6, 4\)\. Add steps'):
        read_layers(ProjectionPlan('t', 's', (entry,)), source)
