"""Scores by the size of weights."""

from __future__ import annotations

import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, HIDDEN, StandIn, stirred

from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.scorers.magnitude import magnitude_scores


@torch.no_grad()
def test_norms_by_hand() -> None:
    model = stirred(StandIn())
    heads, neurons = (magnitude_scores(Calibration(model), unit) for unit in ('heads', 'neurons'))
    assert heads.shape == (DEPTH, HEADS)
    assert neurons.shape == (DEPTH, HIDDEN)
    attention, mlp, rows = model.blocks[1].attn, model.blocks[1].mlp, slice(HEAD_DIM, 2 * HEAD_DIM)
    parts = [getattr(attention, f'{name}_proj').weight[rows].flatten() for name in 'qkv']
    expected = torch.cat([*parts, attention.proj.weight[:, rows].flatten()]).norm()
    torch.testing.assert_close(heads[1, 1].float(), expected)
    column = mlp.w3.weight[:, 7] * mlp.ffn_ln.weight[7]
    torch.testing.assert_close(neurons[1, 7].float(), torch.cat([mlp.w1.weight[7], mlp.w2.weight[7], column]).norm())
