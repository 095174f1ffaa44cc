"""What a block's output loses, beside the differences measured on it."""

from __future__ import annotations

import pytest
import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, HIDDEN, StandIn, stirred, tokens
from torch import Tensor

from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.scorers.reconstruction import DAMPING, reconstruction_scores

BATCHES = [tokens(4, seed=3), tokens(2, seed=4)]
READERS = {'heads': ('attn.proj', HEADS, HEAD_DIM), 'neurons': ('mlp.w3', HIDDEN, 1)}


@torch.no_grad()
def inputs_of(model: StandIn, path: str) -> Tensor:
    seen: list[Tensor] = []
    handle = model.blocks[1].get_submodule(path).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    for batch in BATCHES:
        model(batch)
    handle.remove()
    return torch.cat([x.flatten(0, -2) for x in seen]).double()


@pytest.mark.parametrize('unit', READERS)
def test_scores_are_measured_changes(unit: str) -> None:
    model = stirred(StandIn())
    path, units, size = READERS[unit]
    scores = reconstruction_scores(Calibration(model, BATCHES), unit)
    assert scores.shape == (DEPTH, units)
    x, weight = inputs_of(model, path), model.blocks[1].get_submodule(path).weight.detach().double()
    for number in (0, units - 1):
        columns = slice(number * size, (number + 1) * size)
        change = (x[:, columns] @ weight[:, columns].T).square().sum() / (x @ weight.T).square().sum()
        torch.testing.assert_close(scores[1, number], change)


@pytest.mark.parametrize('unit', READERS)
def test_with_refit_they_are_what_least_squares_leaves(unit: str) -> None:
    model = stirred(StandIn())
    path, units, size = READERS[unit]
    scores = reconstruction_scores(Calibration(model, BATCHES), unit, refit=True)
    x, weight = inputs_of(model, path), model.blocks[1].get_submodule(path).weight.detach().double()
    damping = DAMPING * x.square().mean(0).mean() * len(x)
    x = torch.cat([x, damping.sqrt() * torch.eye(x.shape[1], dtype=x.dtype)])
    y, energy = x @ weight.T, (x[: -x.shape[1]] @ weight.T).square().sum()
    for number in (0, units - 1):
        columns = slice(number * size, (number + 1) * size)
        others = torch.cat([x[:, : columns.start], x[:, columns.stop :]], 1)
        rest = y - others @ torch.linalg.lstsq(others, y).solution
        torch.testing.assert_close(scores[1, number], rest.square().sum() / energy)
    assert (scores <= reconstruction_scores(Calibration(model, BATCHES), unit) + 1e-9).all()


def test_a_repeated_head_is_no_loss_with_refit() -> None:
    model = stirred(StandIn())
    with torch.no_grad():
        for name in ('q_proj.weight', 'k_proj.weight', 'v_proj.weight', 'q_bias', 'v_bias'):
            value = model.blocks[1].attn.get_parameter(name)
            value[HEAD_DIM : 2 * HEAD_DIM] = value[:HEAD_DIM]
    plain, refit = (reconstruction_scores(Calibration(model, BATCHES), 'heads', refit=r)[1] for r in (False, True))
    assert (refit[:2] < 1e-5).all()
    assert (refit[2:] > 1e-3).all()
    assert (plain > 1e-2).all()


def test_the_model_is_left_as_it_was() -> None:
    model = stirred(StandIn()).train()
    reconstruction_scores(Calibration(model, BATCHES), 'heads')
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
