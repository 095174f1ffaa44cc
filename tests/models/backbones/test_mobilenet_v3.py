"""MobileNetV3-Small must be torchvision's, with torchvision's weights, at every output stride."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from kdplugin.errors import ConfigError
from kdplugin.models import MobileNetV3Small
from kdplugin.registry import MODELS


def torchvision_model(dilated: bool = False) -> nn.Module:
    """Return torchvision's network with random weights and random running statistics."""
    torch.manual_seed(0)
    model = mobilenet_v3_small(weights=None, dilated=dilated)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def torchvision_levels(model: nn.Module, images: Tensor, indices: tuple[int, ...]) -> list[Tensor]:
    return [model.features[: index + 1](images) for index in indices]


@pytest.mark.parametrize(('output_stride', 'dilated'), [(32, False), (16, True)])
def test_outputs_equal_torchvision_bit_for_bit(output_stride: int, dilated: bool) -> None:
    reference = torchvision_model(dilated)
    backbone = MobileNetV3Small(output_stride=output_stride, out_indices=(1, 3, 8, 12)).eval()
    backbone.features.load_state_dict(reference.features.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        levels = backbone(images)
        expected = torchvision_levels(reference, images, (1, 3, 8, 12))
    assert [level.shape[1] for level in levels] == [16, 24, 48, 576]
    for level, wanted in zip(levels, expected, strict=True):
        assert torch.equal(level, wanted)


@pytest.mark.parametrize('output_stride', [8, 16, 32])
def test_state_dict_keys_are_torchvisions_at_every_stride(output_stride: int) -> None:
    names = [name for name in mobilenet_v3_small().state_dict() if name.startswith('features.')]
    assert list(MobileNetV3Small(output_stride=output_stride).state_dict()) == names


@pytest.mark.parametrize(('output_stride', 'strides'), [(8, [4, 8, 8, 8]), (16, [4, 8, 16, 16]), (32, [4, 8, 16, 32])])
def test_strides(output_stride: int, strides: list[int]) -> None:
    backbone = MobileNetV3Small(output_stride=output_stride, out_indices=(1, 3, 8, 12)).eval()
    with torch.no_grad():
        levels = backbone(torch.rand(1, 3, 64, 128))
    assert [(64 // level.shape[2], 128 // level.shape[3]) for level in levels] == [(s, s) for s in strides]


def test_dilation_doubles_with_every_stride_taken_away() -> None:
    features = MobileNetV3Small(output_stride=8).features
    rates = [
        next(conv.dilation[0] for conv in layer.modules() if isinstance(conv, nn.Conv2d) and conv.groups > 1)
        for layer in features[1:12]
    ]
    assert rates == [1, 1, 1, 2, 2, 2, 2, 2, 4, 4, 4]


def test_bn_momentum_reaches_every_norm_layer() -> None:
    def momenta(backbone: nn.Module) -> set[tuple[float, float]]:
        return {(m.momentum, m.eps) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)}

    assert momenta(MobileNetV3Small()) == {(0.01, 1e-3)}
    assert momenta(MobileNetV3Small(bn_momentum=0.1)) == {(0.1, 1e-3)}


def test_torchvision_checkpoint_loads_through_init_cfg(tmp_path: Path) -> None:
    reference = torchvision_model()
    path = tmp_path / 'mobilenet_v3_small.pth'
    torch.save(reference.state_dict(), path)
    backbone = MODELS.build(
        {'type': 'kdplugin.MobileNetV3Small', 'init_cfg': {'type': 'Pretrained', 'checkpoint': str(path)}}
    )
    backbone.init_weights()
    loaded = backbone.state_dict()
    wanted = {name: value for name, value in reference.state_dict().items() if name.startswith('features.')}
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], value) for name, value in wanted.items())


def test_only_the_classifier_of_a_torchvision_checkpoint_is_left_over() -> None:
    backbone = MobileNetV3Small(output_stride=16)
    result = backbone.load_state_dict(torchvision_model().state_dict(), strict=False)
    assert result.missing_keys == []
    assert {name.split('.')[0] for name in result.unexpected_keys} == {'classifier'}


def test_layers_behind_the_last_index_are_not_built() -> None:
    backbone = MobileNetV3Small(out_indices=(3, 8))
    loss = torch.stack([level.mean() for level in backbone(torch.rand(2, 3, 64, 64))]).sum()
    loss.backward()
    assert len(backbone.features) == 9
    assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_init_weights_without_init_cfg_keeps_torchvisions_initialisation() -> None:
    torch.manual_seed(3)
    backbone = MobileNetV3Small()
    backbone.init_weights()
    torch.manual_seed(3)
    reference = mobilenet_v3_small(norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)).features
    assert torch.equal(backbone.features[4].block[1][0].weight, reference[4].block[1][0].weight)


@pytest.mark.parametrize('indices', [(), (3, 1), (1, 1), (1, 13), (-1,)])
def test_bad_out_indices_are_refused(indices: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r'Expected out_indices ascending within 0\.\.12 but got \('):
        MobileNetV3Small(out_indices=indices)


def test_bad_output_stride_is_refused() -> None:
    with pytest.raises(ConfigError, match='Expected output_stride 8, 16 or 32 but got 4'):
        MobileNetV3Small(output_stride=4)
