from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_fixtures import build, segmentor
from mmengine.config import Config
from torch import nn

from kdplugin.preflight.memory import (
    Growth,
    activation_bytes,
    estimate,
    growth_of,
    memory_parts,
    plain_estimates,
    training_sizes,
    weight_bytes,
)
from kdplugin.reports.tables import render

SGD = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD'))))


def test_weights_gradients_and_states() -> None:
    model = nn.Linear(10, 9)
    assert weight_bytes(SGD, model) == 4 * 99 * 3
    model.bias.requires_grad_(False)
    assert weight_bytes(SGD, model) == 4 * (99 + 2 * 90)
    averaged = Config(dict(SGD.to_dict(), custom_hooks=[dict(type='EMAHook')]))
    assert weight_bytes(averaged, model) == 4 * (2 * 99 + 2 * 90)


class Squares(nn.Module):
    """Keeps its input once and its own result once."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, inputs: torch.Tensor, samples: Any, mode: str) -> dict[str, torch.Tensor]:
        return dict(loss=((inputs * self.weight) ** 2).sum())


def test_what_autograd_keeps_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.zeros(2, 3, 8, 8)
    monkeypatch.setattr('kdplugin.preflight.memory.synthetic_batch', lambda *_: (batch, []))
    assert activation_bytes(Squares(), (8, 8), 2) == 2 * batch.nbytes + 2 * batch.nbytes + batch.nbytes


def test_activations_grow_with_the_pixels() -> None:
    growth = growth_of(build(segmentor()))
    measured = activation_bytes(build(segmentor()), (512, 512), 2)
    assert growth.at((512, 512), 2) == pytest.approx(measured, rel=0.05)
    assert Growth(10.0, 2.0).at((3, 4), 5) == 170


def test_sizes_come_from_the_pipeline() -> None:
    def config(*steps: dict[str, Any]) -> Config:
        return Config(dict(train_dataloader=dict(dataset=dict(type='X', pipeline=list(steps)))))

    assert training_sizes(config(dict(type='Resize', scale=(1333, 800)))) == [(800, 1344)]
    crop = dict(type='RandomCrop', crop_size=(512, 1000))
    assert training_sizes(config(dict(type='RandomResize', scale=(2048, 1024)), crop)) == [(512, 1024)]
    assert training_sizes(Config({})) == [(256, 256)]


def test_estimates_rise_with_the_batch_and_fall_in_half_precision() -> None:
    student = build(segmentor())
    one, four = estimate(SGD, student, [(256, 256)], [1, 4])
    assert one.total < four.total
    assert four.activations == pytest.approx(4 * one.activations, rel=0.01)
    amp = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', optimizer=dict(type='SGD'))))
    assert estimate(amp, student, [(256, 256)], [1])[0].activations < one.activations
    text = render(*memory_parts([one, four], 4))
    assert '4 *' in text
    assert 'not measured on a GPU' in text
    assert plain_estimates([one])[0]['size'] == [256, 256]
