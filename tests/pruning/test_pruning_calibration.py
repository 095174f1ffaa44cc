"""A model with its batches."""

from __future__ import annotations

import pytest
import torch
from eva_stand_in import Detector, StandIn, stirred, tokens
from torch import nn

from kdplugin.errors import ConfigError
from kdplugin.pruning.calibration import Calibration, output_energy


def test_it_finds_the_blocks_and_walks_the_batches(capsys: pytest.CaptureFixture[str]) -> None:
    model = stirred(Detector())
    calibration = Calibration(model, [tokens(2), tokens(1)])
    assert calibration.blocks.sizes.prefix == 'backbone.'
    assert [len(batch) for batch in calibration.walk('test')] == [2, 1]
    assert capsys.readouterr() == ('', '')


def test_no_batches_are_an_error() -> None:
    with pytest.raises(ConfigError, match='Expected calibration batches for taylor of heads but got none'):
        next(iter(Calibration(stirred(StandIn())).walk('taylor of heads')))


def test_the_energy_of_outputs() -> None:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.eye(2))
        model.bias.zero_()
    loss = output_energy(model, torch.tensor([[3.0, 4.0]]))
    assert float(loss) == 25 / 4
    assert loss.requires_grad
