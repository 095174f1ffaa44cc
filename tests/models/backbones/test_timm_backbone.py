"""timm's levels, names and weights behind mmengine's way of building and initialising."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from engine_fixtures import build, detector, segmentor
from mmengine.registry import MODELS

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.models import TimmBackbone

CNN = 'test_convnext'  # timm's own nets for tests: a few ten thousand parameters
VIT = dict(model_name='test_vit', img_size=64)


def backbone(**settings: Any) -> TimmBackbone:
    return MODELS.build(dict(type='kdplugin.TimmBackbone', **settings))


@pytest.mark.parametrize(
    ('settings', 'names'),
    [
        (dict(model_name=CNN), 'net.stem_0.weight'),
        (dict(model_name='test_resnet', out_indices=(1, 4)), 'net.layer1.0.conv1.weight'),
        (dict(VIT, out_indices=(1, 3)), 'net.model.blocks.0.attn.qkv.weight'),
        (dict(model_name='swin_s3_tiny_224', img_size=64, window_size=2, embed_dim=24), 'net.patch_embed.proj.weight'),
    ],
)
def test_levels_have_the_channels_and_strides_that_they_say(settings: dict[str, Any], names: str) -> None:
    model = backbone(**settings).eval()
    with torch.no_grad():
        levels = model(torch.rand(2, 3, 64, 64))
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, 64 // stride, 64 // stride)
        for channels, stride in zip(model.channels, model.strides, strict=True)
    ]
    assert names in model.state_dict()
    assert all(name.startswith('net.') for name in model.state_dict())


def test_outputs_are_timms() -> None:
    model = backbone(model_name=CNN, out_indices=(0, 2)).eval()
    plain = timm.create_model(CNN, features_only=True, out_indices=(0, 2)).eval()
    plain.load_state_dict({name.removeprefix('net.'): value for name, value in model.state_dict().items()})
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(model(images), plain(images), strict=True))


@pytest.mark.parametrize('settings', [dict(model_name=CNN), VIT])
def test_a_checkpoint_in_timms_names_is_read_at_initialisation(settings: dict[str, Any], tmp_path: Path) -> None:
    size = {key: value for key, value in settings.items() if key != 'model_name'}
    whole = timm.create_model(settings['model_name'], **size).eval()
    torch.save(whole.state_dict(), tmp_path / 'timm.pth')
    model = backbone(checkpoint=str(tmp_path / 'timm.pth'), **settings).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = whole.forward_intermediates(images, intermediates_only=True, output_fmt='NCHW')[-1]
        assert not torch.allclose(model(images)[-1], wanted, atol=1e-3)
        model.init_weights()
        assert torch.allclose(model(images)[-1], wanted, atol=1e-5)


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    weights = timm.create_model(CNN).state_dict()
    weights.pop('stages.0.blocks.0.conv_dw.weight')
    torch.save(weights, tmp_path / 'part.pth')
    model = backbone(model_name=CNN, checkpoint=str(tmp_path / 'part.pth'))
    with pytest.raises(CheckpointError, match=r'part\.pth to hold all weights of test_convnext .* Missing key'):
        model.init_weights()


def test_nothing_is_read_when_a_model_is_built_or_without_a_source(tmp_path: Path) -> None:
    assert backbone(model_name=CNN, checkpoint=str(tmp_path / 'nowhere.pth')).checkpoint is not None
    model = backbone(model_name=CNN)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            dict(model_name='test_convnex'),
            r"Expected a model of timm but got 'test_convnex'\. Did you mean 'test_convnext'",
        ),
        (
            dict(model_name=CNN, out_indices=(9,)),
            r'Expected test_convnext to be built with levels and settings .* timm says',
        ),
        (dict(model_name=CNN, colour='red'), r"built with levels and settings .*'colour': 'red'"),
        (
            dict(model_name=CNN, pretrained=True, checkpoint='a.pth'),
            r'either pretrained=True or a checkpoint but got both',
        ),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TimmBackbone(**settings)


@pytest.mark.parametrize('kind', ['mmdet', 'mmseg'])
def test_it_serves_as_student(kind: str) -> None:
    own = dict(type='kdplugin.TimmBackbone', model_name=CNN)
    channels = list(backbone(model_name=CNN).channels)
    if kind == 'mmdet':
        config = detector()
        config['neck']['in_channels'] = channels
    else:
        config = segmentor()
        config['decode_head']['in_channels'] = channels[3]
    model = build(dict(config, backbone=own))
    outputs = model(torch.rand(2, 3, 64, 64), mode='tensor')
    assert len(outputs) == 2
