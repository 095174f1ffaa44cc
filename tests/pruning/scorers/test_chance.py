"""The control."""

from __future__ import annotations

import torch
from eva_stand_in import DEPTH, HEADS, HIDDEN, StandIn

from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.scorers.chance import chance_scores


def test_seeds_decide_and_the_global_state_stays() -> None:
    calibration, state = Calibration(StandIn()), torch.get_rng_state()
    first, same, other = (chance_scores(calibration, 'heads', seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.shape == (DEPTH, HEADS)
    assert chance_scores(calibration, 'neurons').shape == (DEPTH, HIDDEN)
    assert torch.equal(torch.get_rng_state(), state)
