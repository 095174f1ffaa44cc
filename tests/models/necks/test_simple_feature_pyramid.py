"""The pyramid's strides, its layers against plain calls, and a detector on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_fixtures import build, detector
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.models import SimpleFeaturePyramid
from kdplugin.registry import MODELS


def neck(**settings: Any) -> SimpleFeaturePyramid:
    torch.manual_seed(0)
    return MODELS.build(dict(type='kdplugin.SimpleFeaturePyramid', in_channels=16, out_channels=8, **settings))


def layer_norm(x: Tensor, module: torch.nn.Module) -> Tensor:
    """Normalise over channels at each place."""
    centred = x - x.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return normed * module.weight[:, None, None] + module.bias[:, None, None]


def last_convolutions(x: Tensor, layers: torch.nn.Sequential) -> Tensor:
    for layer in layers[-2:]:
        x = layer_norm(F.conv2d(x, layer.conv.weight, padding=layer.conv.padding), layer.norm)
    return x


def test_strides_from_one_map() -> None:
    maps = [torch.randn(2, 3, 99, 99), torch.randn(2, 16, 8, 12)]
    levels = neck()(maps)
    assert [tuple(level.shape) for level in levels] == [(2, 8, 32, 48), (2, 8, 16, 24), (2, 8, 8, 12), (2, 8, 4, 6)]
    assert all(torch.equal(one, other) for one, other in zip(levels, neck()(maps[1]), strict=True))


def test_further_levels_skip_every_second_value() -> None:
    *_, fourth, fifth, sixth = neck(num_outs=6)([torch.randn(1, 16, 8, 8)])
    assert torch.equal(fifth, fourth[:, :, ::2, ::2])
    assert sixth.shape == (1, 8, 1, 1)


def test_levels_are_the_papers_layers() -> None:
    model = neck()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(1, 16, 4, 6)
    four, two, one, half = model.levels
    up = F.conv_transpose2d(x, four[0].weight, four[0].bias, stride=2)
    up = F.gelu(layer_norm(up, four[1]))
    up = F.conv_transpose2d(up, four[3].weight, four[3].bias, stride=2)
    wanted = [
        last_convolutions(up, four),
        last_convolutions(F.conv_transpose2d(x, two[0].weight, two[0].bias, stride=2), two),
        last_convolutions(x, one),
        last_convolutions(F.max_pool2d(x, 2), half),
    ]
    for level, value in zip(model([x]), wanted, strict=True):
        assert torch.allclose(level, value, atol=1e-4)
    assert [four[0].out_channels, four[3].out_channels, two[0].out_channels] == [8, 4, 8]


def test_other_scales_and_norms() -> None:
    model = neck(scales=(1, 0.25), norm_cfg=dict(type='BN'))
    assert [tuple(level.shape[2:]) for level in model([torch.randn(2, 16, 8, 8)])] == [(8, 8), (2, 2)]
    assert isinstance(model.levels[0][0].norm, torch.nn.BatchNorm2d)
    bare = neck(norm_cfg=None)
    assert not any(isinstance(module, torch.nn.LayerNorm) for module in bare.modules())
    assert bare.levels[0][-1].conv.bias is not None


def test_every_parameter_has_a_gradient() -> None:
    model = neck()
    sum(level.square().sum() for level in model([torch.randn(1, 16, 4, 4)])).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_a_detector_stands_on_it() -> None:
    config = detector()
    backbone = dict(type='kdplugin.EVAViT', img_size=64, embed_dim=16, depth=3, num_heads=2, window_size=2)
    pyramid = dict(
        type='kdplugin.SimpleFeaturePyramid', in_channels=16, out_channels=16, scales=(2, 1, 0.5), num_outs=5
    )
    model = build(dict(config, backbone=backbone, neck=pyramid))
    scores, boxes = model(torch.rand(2, 3, 64, 64), mode='tensor')
    assert [tuple(level.shape[2:]) for level in scores] == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    assert len(boxes) == 5


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(scales=(3, 1)), 'Expected scales that are powers of two but got 3'),
        (dict(scales=(0,)), 'Expected scales that are powers of two but got 0'),
        (dict(scales=()), r'Expected at least one scale .* but got scales \(\)'),
        (dict(num_outs=2), r'num_outs for all of them but got scales \(4, 2, 1, 0.5\) and num_outs 2'),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        neck(**settings)
