"""Rotary embeddings leave few traces: what counts as one, and when q and k may rotate."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from small_nets import PostNorm, Vit, same_names
from torch import nn

from kdplugin.weights.plan import Entry, ProjectionPlan
from kdplugin.weights.plan_shapes import MetaSource
from kdplugin.weights.projection.layer_slots import read_layers
from kdplugin.weights.projection.rotary import rotary_custom, rotary_widths
from kdplugin.weights.projection.transformer_blocks import find_blocks
from kdplugin.weights.reading.tensor_source import MemorySource


def custom(wide: nn.Module, narrow: nn.Module, *, without: str = ' ', names: Iterable[str] = ()) -> str:
    state = {name: value for name, value in wide.state_dict().items() if without not in name}
    layers = read_layers(same_names(state, narrow.state_dict()), MetaSource(MemorySource(state)))[1]
    return rotary_custom([*state, *names], layers, find_blocks(layers))


def test_learned_positions_and_full_biases_have_no_rotary_embeddings() -> None:
    assert custom(Vit(32, fused=False), Vit(16, fused=False)) == 'none'
    assert custom(PostNorm(32, 4), PostNorm(16, 2)) == 'none'


@pytest.mark.parametrize('hint', ['blocks.0.attn.rope.freqs_cos', 'rotary_emb.inv_freq'])
def test_names_hint_at_them(hint: str) -> None:
    assert custom(Vit(32, fused=False), Vit(16, fused=False), names=[hint]) == 'both'


def test_so_do_norms_of_q_and_k_and_a_k_without_a_bias_and_missing_positions() -> None:
    assert custom(Vit(32, qk_norm=True), Vit(16, qk_norm=True)) == 'both'
    assert custom(Vit(32, fused=False), Vit(16, fused=False), without='k_proj.bias') == 'both'
    assert custom(Vit(32, fused=False), Vit(16, fused=False), without='pos_embed') == 'both'


def test_tables_of_both_sides_tell_the_width_of_heads() -> None:
    source = MemorySource({'rope_win.freqs_cos': torch.empty(256, 64, device='meta')})
    plan = ProjectionPlan('t', 's', (Entry('rope_win.freqs_cos', (256, 32), 'random', reason='computed'),))
    assert rotary_widths(plan, source) == (64, 32)
    halves = MemorySource({'rotary_emb.inv_freq': torch.empty(32, device='meta')})
    assert rotary_widths(plan, halves) == (64, 32)
    assert rotary_widths(plan, MemorySource({'w': torch.empty(3)})) is None
