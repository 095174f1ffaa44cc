"""Finding blocks and sizes in models and files."""

from __future__ import annotations

import pytest
import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, HIDDEN, Detector, StandIn
from torch import nn

from kdplugin.errors import CheckpointError, ConfigError, PathError
from kdplugin.pruning.blocks import Sizes, blocks_of, prefix_of, sizes_of
from kdplugin.weights.reading.source import open_source

SIZES = Sizes('backbone.', DEPTH, HEADS, HEAD_DIM, HIDDEN)


def test_blocks_of_a_model() -> None:
    model = Detector()
    blocks = blocks_of(model)
    assert blocks.sizes == SIZES
    assert len(blocks) == DEPTH
    assert blocks[2, 'mlp.w3'] is model.backbone.blocks[2].mlp.w3
    assert blocks_of(StandIn(), 'img_backbone.').sizes.prefix == ''
    assert (SIZES.units('heads'), SIZES.units('neurons')) == (HEADS, HIDDEN)


def test_sizes_of_files() -> None:
    state = Detector().state_dict()
    assert sizes_of(state, num_heads=HEADS) == sizes_of(open_source(state), head_dim=HEAD_DIM) == SIZES
    state['backbone.blocks.0.attn.rope.freqs_cos'] = torch.zeros(9, HEAD_DIM)
    assert sizes_of(state) == SIZES


def test_several_backbones_need_a_prefix() -> None:
    model = nn.ModuleDict({'one': StandIn(), 'two': Detector()})
    with pytest.raises(CheckpointError, match=r"Expected one backbone in ModuleDict but got 'one.', 'two.backbone.'"):
        blocks_of(model)
    assert blocks_of(model, 'two.backbone.').sizes.prefix == 'two.backbone.'


def test_models_that_cannot_be_pruned() -> None:
    with pytest.raises(CheckpointError, match=r'Expected blocks.N.attn.q_proj.weight among the 2 tensors of Linear'):
        blocks_of(nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"the checkpoint but got none. Did you mean 'blocks.0.attn.qkv.weight'"):
        prefix_of(['blocks.0.attn.qkv.weight'])
    uneven = StandIn((4, 4, 2))
    with pytest.raises(CheckpointError, match=r'Expected blocks of one size in StandIn but got \[12, 24\] rows of q'):
        blocks_of(uneven)
    plain = StandIn()
    del plain.blocks[1].mlp.ffn_ln
    with pytest.raises(PathError, match=r"Expected a module path of the block 1 of StandIn but got 'mlp.ffn_ln'"):
        blocks_of(plain)


def test_the_width_of_a_head_must_be_known() -> None:
    state = dict(StandIn().state_dict())
    with pytest.raises(ConfigError, match=r'divide 24 rows of q in teacher.pth but got num_heads=None, head_dim=None'):
        sizes_of(state, where='teacher.pth')
    with pytest.raises(ConfigError, match='got num_heads=5, head_dim=4'):
        sizes_of(state, num_heads=5)
    for number in ('0', '1'):
        state.pop(f'blocks.{number}.attn.q_proj.weight')
    with pytest.raises(CheckpointError, match=r'Expected blocks 0, 1, 2, ... in the checkpoint but got \[2\]'):
        sizes_of(state, num_heads=HEADS)


def test_units_are_heads_or_neurons() -> None:
    with pytest.raises(ConfigError, match="Expected a unit of heads or neurons but got 'layers'"):
        SIZES.units('layers')
