from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdplugin.errors import CheckpointError, ConfigError, PathError
from kdplugin.weight_targets import (
    add_arguments,
    build_target,
    parse_layers,
    plan_options,
    source_of,
    stand_in,
    target_of,
)
from kdplugin.weights.reading.source import open_source


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def save(path: Path, width: int = 4) -> Path:
    torch.manual_seed(0)
    weights = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width)).state_dict()
    torch.save({'state_dict': {f'net.{key}': value for key, value in weights.items()}}, path)
    return path


def test_a_checkpoint_stands_for_a_model_of_its_tensors(tmp_path: Path) -> None:
    model = build_target(str(save(tmp_path / 'a.pth')))
    weights = torch.load(tmp_path / 'a.pth', weights_only=True)['state_dict']
    assert list(model.state_dict()) == list(weights)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
    assert {name for name, _ in model.named_buffers()} == {
        'net.1.running_mean', 'net.1.running_var', 'net.1.num_batches_tracked',
    }  # fmt: skip


def test_a_part_of_a_target_is_a_target(tmp_path: Path) -> None:
    path = str(save(tmp_path / 'a.pth'))
    assert list(target_of(arguments('s', path, '--target', 'net.0')).state_dict()) == ['weight', 'bias']
    with pytest.raises(PathError, match=r"Expected a module path of the .*a\.pth but got 'head'"):
        target_of(arguments('s', path, '--target', 'head'))


def test_names_that_modules_use_themselves_can_be_parts() -> None:
    names = ['training.weight', 'forward.0.bias', 'forward.1.training']
    assert list(stand_in(open_source({name: torch.ones(1) for name in names})).state_dict()) == names


def test_reports_name_a_checkpoint_by_its_file(tmp_path: Path) -> None:
    assert type(build_target(str(save(tmp_path / 'a.pth')))).__name__ == 'a.pth'


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError('Expected no connection.')

    monkeypatch.setattr(socket.socket, 'connect', refuse)


@pytest.mark.usefixtures('offline')
@pytest.mark.parametrize(
    ('spec', 'tensors', 'name'),
    [
        ('torchvision:resnet18', 122, 'layer4.1.bn2.running_var'),
        ('torchvision:lraspp_mobilenet_v3_large', 319, 'classifier.high_classifier.bias'),
        ('timm:vit_tiny_patch16_224', 152, 'blocks.11.attn.qkv.weight'),
    ],
)
def test_models_of_libraries_are_built_without_a_download(spec: str, tensors: int, name: str) -> None:
    weights = build_target(spec).state_dict()
    assert len(weights) == tensors
    assert name in weights


@pytest.mark.parametrize(
    ('spec', 'error', 'message'),
    [
        (
            'timm:vit_tiny_patch16_225',
            ConfigError,
            r"model of timm but got 'vit_tiny_patch16_225'\. Did you mean 'vit_tiny_",
        ),
        ('torchvision:resnet19', ConfigError, r"model of torchvision but got 'resnet19'\. Did you mean 'resnet1"),
        ('nowhere/model.pth', CheckpointError, r'nowhere/model\.pth does not exist'),
    ],
)
def test_what_does_not_exist_is_named(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_target(spec)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ConfigError, match=r'Expected timm for timm:x but it is not installed\. Run pip install timm\.'):
        build_target('timm:x')


def test_the_source_is_opened_with_all_options(tmp_path: Path) -> None:
    (tmp_path / 'transformer_2').mkdir()
    save_file({'net.w': torch.ones(2), 'other.w': torch.ones(3)}, tmp_path / 'transformer_2' / 'model.safetensors')
    source = source_of(arguments(str(tmp_path), 't', '--subfolder', 'transformer_2', '--prefix', 'net.'))
    assert {name: source.shape(name) for name in source} == {'w': (2,)}


def test_averaged_weights_on_request(tmp_path: Path) -> None:
    torch.save({'state_dict': {'w': torch.zeros(1)}, 'model_ema': {'w': torch.ones(1)}}, tmp_path / 'a.pth')
    assert source_of(arguments(str(tmp_path / 'a.pth'), 't', '--ema'))['w'].item() == 1
    assert source_of(arguments(str(tmp_path / 'a.pth'), 't'))['w'].item() == 0


@pytest.mark.parametrize(('text', 'value'), [('uniform', 'uniform'), ('0,3,7', [0, 3, 7]), ('2', [2])])
def test_layers_are_a_strategy_or_indices(text: str, value: object) -> None:
    assert parse_layers(text) == value
    assert arguments('s', 't', '--layers', text).layers == value


@pytest.mark.parametrize(('text', 'value'), [('16', 16), ('16,8', {'source': 16, 'target': 8})])
def test_heads_are_those_of_the_source_or_of_both(text: str, value: object) -> None:
    given = arguments('s', 't', '--heads', text, '--head-dim', '64')
    assert plan_options(given) == {'method': 'svd', 'layers': 'uniform', 'heads': value, 'head_dim': 64}
