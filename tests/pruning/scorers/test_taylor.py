"""The gradient of gates, beside differences of the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from eva_stand_in import DEPTH, HEADS, HIDDEN, StandIn, stirred, tokens
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.gates import gated
from kdplugin.pruning.scorers.taylor import taylor_scores

BATCHES = [tokens(2, seed=seed) for seed in (5, 6)]


def task(model: nn.Module, batch: Tensor) -> Tensor:
    return F.mse_loss(model(batch), 2 * batch.roll(1, 1))


@pytest.mark.parametrize(('unit', 'units'), [('heads', HEADS), ('neurons', HIDDEN)])
def test_scores_are_slopes_of_the_loss(unit: str, units: int) -> None:
    model = stirred(StandIn()).double()
    batches = [batch.double() for batch in BATCHES]
    calibration = Calibration(model, batches, objective=task)
    scores = taylor_scores(calibration, unit)
    assert scores.shape == (DEPTH, units)
    for block, number in ((0, 1), (2, 3)):
        slopes = []
        for batch in batches:
            losses = []
            for step in (-1e-3, 1e-3):
                gates = torch.ones(DEPTH, units, dtype=torch.float64)
                gates[block, number] += step
                with torch.no_grad(), gated(calibration.blocks, **{unit: gates}):
                    losses.append(float(task(model, batch)))
            slopes.append(abs(losses[1] - losses[0]) / 2e-3)
        assert float(scores[block, number]) == pytest.approx(sum(slopes) / 2, rel=1e-3)


def test_a_unit_that_nothing_reads_scores_nothing() -> None:
    model = stirred(StandIn())
    with torch.no_grad():
        model.blocks[1].attn.proj.weight[:, :6] = 0
    scores = taylor_scores(Calibration(model, BATCHES, objective=task), 'heads')
    assert float(scores[1, 0]) == 0
    assert (scores > 0).sum() == DEPTH * HEADS - 1


def test_the_model_is_left_as_it_was() -> None:
    model = stirred(StandIn()).train()
    model.blocks[0].drop.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    model.pos_embed.grad = torch.ones_like(model.pos_embed)
    first, second = (taylor_scores(Calibration(model, BATCHES, objective=task), 'heads') for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert [name for name, value in model.named_parameters() if value.grad is not None] == ['pos_embed']
    assert torch.equal(model.pos_embed.grad, torch.ones_like(model.pos_embed))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_frozen_models_and_the_energy_of_outputs() -> None:
    model = stirred(StandIn()).requires_grad_(False)
    assert (taylor_scores(Calibration(model, BATCHES), 'neurons') > 0).any()


@pytest.mark.parametrize(
    ('objective', 'message'),
    [
        (lambda model, batch: model(batch), r'returns one number with a gradient but got shape \(2, 9, 24\)'),
        (lambda model, batch: 1.0, 'returns one number with a gradient but got float'),
        (lambda model, batch: task(model, batch).detach(), r'but got shape \(\)'),
        (lambda model, batch: model.pos_embed.sum(), 'depends on the blocks but its gradient is none'),
        (lambda model, batch: task(model, batch) * float('nan'), r'a finite gradient but got NaN .*\(loss nan\)'),
    ],
)
def test_objectives_that_say_nothing(objective: Any, message: str) -> None:
    model = stirred(StandIn())
    with pytest.raises(ConfigError, match=message):
        taylor_scores(Calibration(model, BATCHES, objective=objective), 'heads')
    assert not any(module._forward_pre_hooks for module in model.modules())
