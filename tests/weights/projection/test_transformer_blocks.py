"""Blocks of known layouts: what is attention, MLP, norm and scale, in which order, and which norm is read by whom."""

from __future__ import annotations

import pytest
import torch
from small_nets import Modulated, PostNorm, Vit, same_names
from torch import nn

from kdplugin.weights.plan_shapes import MetaSource
from kdplugin.weights.projection.layer_slots import read_layers
from kdplugin.weights.projection.transformer_blocks import Block, find_blocks
from kdplugin.weights.reading.tensor_source import MemorySource

HF_VIT = {
    'layer.0.attention.attention.query': (16, 16), 'layer.0.attention.attention.key': (16, 16),
    'layer.0.attention.attention.value': (16, 16), 'layer.0.attention.output.dense': (16, 16),
    'layer.0.intermediate.dense': (32, 16), 'layer.0.output.dense': (16, 32), 'layer.0.layernorm_before': (16,),
    'layer.0.layernorm_after': (16,),
}  # fmt: skip
EVA = {
    'blocks.0.norm1': (16,), 'blocks.0.attn.q_proj': (16, 16), 'blocks.0.attn.k_proj': (16, 16),
    'blocks.0.attn.v_proj': (16, 16), 'blocks.0.attn.proj': (16, 16), 'blocks.0.norm2': (16,),
    'blocks.0.mlp.w1': (40, 16), 'blocks.0.mlp.w2': (40, 16), 'blocks.0.mlp.ffn_ln': (40,),
    'blocks.0.mlp.w3': (16, 40),
}  # fmt: skip
MM_DETR = {
    'layers.0.attentions.0.attn.in_proj': (48, 16), 'layers.0.attentions.0.attn.out_proj': (16, 16),
    'layers.0.attentions.1.attn.in_proj': (48, 16), 'layers.0.attentions.1.attn.out_proj': (16, 16),
    'layers.0.ffns.0.layers.0.0': (64, 16), 'layers.0.ffns.0.layers.1': (16, 64), 'layers.0.norms.0': (16,),
    'layers.0.norms.1': (16,), 'layers.0.norms.2': (16,),
}  # fmt: skip


def blocks_of(shapes: dict[str, tuple[int, ...]]) -> list[Block]:
    state = {}
    for path, shape in shapes.items():
        separator = '_' if path.endswith('in_proj') else '.'
        state[f'{path}{separator}weight'] = torch.empty(shape, device='meta')
        state[f'{path}{separator}bias'] = torch.empty(shape[0], device='meta')
    half = {name: value.new_empty([size // 2 for size in value.shape]) for name, value in state.items()}
    plan, layers = read_layers(same_names(state, half), MetaSource(MemorySource(state)))
    assert len(plan) == len(half)
    return find_blocks(layers)


def blocks_in(model: nn.Module, other: nn.Module) -> list[Block]:
    state = model.state_dict()
    return find_blocks(read_layers(same_names(state, other.state_dict()), MetaSource(MemorySource(state)))[1])


def summary(block: Block) -> dict[str, list[list[str]]]:
    cut = len(block.path) + 1
    return {
        sub.kind: [[layer.path[cut:] for layer in part] for part in (sub.readers, sub.context, sub.inner, sub.writers)]
        for sub in block.sublayers
    }


def test_hf_vit() -> None:
    (block,) = blocks_of(HF_VIT)
    parts = [f'attention.attention.{part}' for part in 'qkv']
    assert block.path == 'layer.0'
    assert summary(block) == {
        'attention': [parts, [], [], ['attention.output.dense']],
        'mlp': [['intermediate.dense'], [], [], ['output.dense']],
    }
    assert block.is_pre_norm
    assert [norm.path for norm in map(block.norm_of, block.sublayers) if norm] == [
        'layer.0.layernorm_before', 'layer.0.layernorm_after']  # fmt: skip


def test_eva_is_gated_with_a_norm_inside() -> None:
    (block,) = blocks_of(EVA)
    assert summary(block)['mlp'] == [['mlp.w1', 'mlp.w2'], [], ['mlp.ffn_ln'], ['mlp.w3']]
    assert block.is_pre_norm
    assert not block.others


def test_mmdet_detr_decoder_attends_to_its_memory_and_is_post_norm() -> None:
    (block,) = blocks_of(MM_DETR)
    assert block.path == 'layers.0'
    assert [sub.kind for sub in block.sublayers] == ['attention', 'attention', 'mlp']
    assert [len(sub.context) for sub in block.sublayers] == [0, 2, 0]
    assert block.crosses
    assert not block.is_pre_norm


def test_torch_encoder_layers_are_post_norm() -> None:
    blocks = blocks_in(PostNorm(32, 4), PostNorm(16, 2))
    assert [block.path for block in blocks] == ['layers.0', 'layers.1']
    assert not any(block.is_pre_norm for block in blocks)
    assert not any(block.crosses for block in blocks)


def test_modulated_blocks_pair_their_one_norm_with_what_follows_it() -> None:
    block = blocks_in(Modulated(32, 4), Modulated(16, 2))[0]
    attention, mlp = block.sublayers
    assert [layer.path for layer in attention.context] == ['blocks.0.cross_attn.k', 'blocks.0.cross_attn.v']
    assert block.norm_of(attention).path == 'blocks.0.norm3'
    assert block.norm_of(mlp) is None


@pytest.mark.parametrize('depth', [1, 11])
def test_scales_and_norms_go_with_their_sublayers(depth: int) -> None:
    blocks = blocks_in(Vit(32, scale=True, depth=depth), Vit(16, scale=True, depth=depth))
    assert len(blocks) == depth
    for number, block in enumerate(blocks):
        found = [(block.norm_of(sub).path, block.scale_of(sub).path) for sub in block.sublayers]
        assert found == [(f'blocks.{number}.norm{i}', f'blocks.{number}.ls{i}') for i in (1, 2)]
