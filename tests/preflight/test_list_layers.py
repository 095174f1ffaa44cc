from __future__ import annotations

import pytest
import torch
from engine_fixtures import build, detector, segmentor
from torch import nn

from kdplugin.errors import ConfigError, TapError
from kdplugin.preflight.layers import layer_parts, layers_of, plain_layers, select
from kdplugin.reports.tables import render


def test_layers_are_what_taps_see() -> None:
    model = build(segmentor())
    model.train()
    layers, how = layers_of(model, [(64, 64)])
    by_path = {layer.path: layer for layer in layers}
    assert how == "mode 'loss' on 64x64"
    assert [layer.path for layer in layers] == [name for name, _ in model.named_modules() if name]
    first = by_path['backbone.layer1']
    assert (first.type, first.shapes, first.stride, first.fires) == ('ResLayer', ((1, 8, 16, 16),), 4.0, 1)
    assert first.parameters == sum(value.numel() for value in model.backbone.layer1.parameters())
    assert by_path['backbone'].shapes[3] == (1, 64, 2, 2)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_that_walks_a_pyramid_fires_for_each_level() -> None:
    layers, _ = layers_of(build(detector()), [(128, 128)])
    by_path = {layer.path: layer for layer in layers}
    assert by_path['bbox_head.gfl_cls'].fires == 5
    assert [shape[-1] for shape in by_path['bbox_head.gfl_cls'].shapes] == [16, 8, 4, 2, 1]
    text = render(*layer_parts(select(layers, r'gfl_cls|^neck$'), 'student', 'x'), width=140)
    assert '[1,10,16,16] [1,10,8,8] [1,10,4,4] +2' in text
    assert len(plain_layers(select(layers, 'GFLHead'))) == 1


def test_selection() -> None:
    layers, _ = layers_of(build(segmentor()), [(64, 64)])
    assert select(layers, None) == layers
    assert {layer.type for layer in select(layers, '^BatchNorm2d$')} == {'BatchNorm2d'}
    with pytest.raises(
        ConfigError, match=r"layers that 'nothing' finds but got none. The top-level modules are \['data"
    ):
        select(layers, 'nothing')
    with pytest.raises(ConfigError, match=r"regular expression but got '\('"):
        select(layers, '(')


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, *args: object, mode: str) -> None:
        raise ValueError('no')


def test_a_model_that_does_not_run_is_one_message() -> None:
    with pytest.raises(TapError, match='Expected the model to run on a synthetic image but got ValueError: no'):
        layers_of(Broken(), [(64, 64)])
