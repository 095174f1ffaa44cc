from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from synthetic_runs import TinySegmentor, recipe
from torch import Tensor, nn

from kdplugin.reports.model_cost import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    count_multiply_adds,
    count_parameters,
    forward,
    measure_latency,
    validation_shape,
)


class Tokens(nn.Module):
    """Attention over the pixels of an image: what fused kernels would hide from a counter."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fused = fused

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Tensor:
        x = inputs.repeat(1, 3, 1, 1)[:, :8].flatten(2).transpose(1, 2)
        if self.fused:
            return nn.functional.scaled_dot_product_attention(x, x, x)
        return self.attention(x, x, x)[0]


class Slow(TinySegmentor):
    """Sleeps, and notes whose turn it is."""

    turns: list[str] = []

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(2)
        self.name, self.seconds = name, seconds

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Tensor:
        self.turns.append(self.name)
        time.sleep(self.seconds)
        return inputs


def test_parameters_count_shared_ones_once_and_no_buffers() -> None:
    shared = nn.Linear(3, 3)
    assert count_parameters(nn.Sequential(shared, shared, nn.BatchNorm1d(3))) == 9 + 3 + 6


def test_multiply_adds_of_convolutions_by_hand_and_by_mmengine() -> None:
    model, images = TinySegmentor(5).eval(), torch.rand(1, 3, 16, 24)
    expected = 16 * 24 * (5 * 3 * 9 + 4 * 5)
    assert count_multiply_adds(model, images) == expected
    theirs = get_model_complexity_info(model, inputs=(images,), show_table=False, show_arch=False)
    assert theirs['flops'] == expected


def test_grouped_convolutions_count_their_groups() -> None:
    model = TinySegmentor(3).eval()
    model.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3)
    assert count_multiply_adds(model, torch.rand(2, 3, 8, 8)) == 2 * 64 * (3 * 9 + 4 * 3)


@pytest.mark.parametrize('fused', [True, False])
def test_attention_is_seen(fused: bool) -> None:
    pixels, width = 16, 8
    products = 2 * pixels * pixels * width
    projections = 0 if fused else 4 * pixels * width * width
    before = torch.backends.mha.get_fastpath_enabled()
    assert count_multiply_adds(Tokens(fused).eval(), torch.rand(1, 3, 4, 4)) == products + projections
    assert torch.backends.mha.get_fastpath_enabled() is before


def test_forward_hands_over_what_detectors_ask_for() -> None:
    class Detector(TinySegmentor):
        def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
            assert not torch.is_grad_enabled()
            return mode, [sample.metainfo for sample in data_samples]

    mode, metas = forward(Detector(2), torch.rand(2, 3, 8, 12))
    assert mode == 'tensor'
    assert [meta['batch_input_shape'] for meta in metas] == [(8, 12), (8, 12)]
    assert {'img_shape', 'ori_shape', 'pad_shape', 'scale_factor'} <= set(metas[0])


def test_latency_alternates_and_tells_fast_from_slow() -> None:
    Slow.turns.clear()
    taken = measure_latency({'fast': Slow('fast', 0.001), 'slow': Slow('slow', 0.01)}, torch.rand(1, 3, 4, 4))
    assert MIN_ROUNDS <= len(taken['fast']) == len(taken['slow']) <= MAX_ROUNDS
    assert min(taken['slow']) >= 10.0 > min(taken['fast']) >= 1.0
    timed = Slow.turns[-2 * len(taken['fast']) :]
    assert timed == ['fast', 'slow'] * len(taken['fast'])


def dataset(**resize: Any) -> dict[str, Any]:
    return dict(dataset=dict(type='D', pipeline=[dict(type='LoadImageFromFile'), dict(type='Resize', **resize)]))


@pytest.mark.parametrize(
    ('loader', 'preprocessor', 'shape'),
    [
        (dict(dataset=dict(pipeline=[])), dict(size=(32, 48)), (32, 48)),
        (dataset(scale=(96, 64)), dict(size=(32, 48)), (64, 96)),
        (dataset(scale=(2048, 512), keep_ratio=True), dict(size=(512, 512)), (512, 512)),
        (dataset(scale=(1333, 800), keep_ratio=True), dict(pad_size_divisor=32), (800, 1344)),
        (dict(dataset=dict(type='RepeatDataset', **dataset(scale=64))), dict(), (64, 64)),
        (dict(dataset=dict(pipeline=[])), dict(), None),
    ],
)
def test_validation_shape(loader: dict[str, Any], preprocessor: dict[str, Any], shape: tuple[int, int] | None) -> None:
    assert validation_shape(Config(recipe(val_dataloader=loader, data_preprocessor=preprocessor))) == shape
