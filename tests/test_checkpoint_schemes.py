"""Whatever way mmengine reads a checkpoint, our reader does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from torch import Tensor, nn

import kdplugin.registry  # noqa: F401
from kdplugin import checkpoint_schemes
from kdplugin.checkpoint_schemes import load_from_safe, local_file
from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import trust_checkpoints, write_checkpoint

REFUSED = 'Nothing was executed.*trust_checkpoint=True'


class Net(BaseModule):
    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.linear = nn.Linear(2, 2)


class TrainedNet(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Tensor:
        return self.linear(inputs)


WEIGHTS = {'linear.weight': torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 'linear.bias': torch.tensor([5.0, 6.0])}


def by_loader(path: Path) -> dict[str, Tensor]:
    content = CheckpointLoader.load_checkpoint(str(path))
    return content.get('state_dict', content)


def by_function(path: Path) -> dict[str, Tensor]:
    model = Net()
    load_checkpoint(model, str(path), map_location='cpu', strict=True)
    return model.state_dict()


def by_init_cfg(path: Path) -> dict[str, Tensor]:
    model = Net(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    return model.state_dict()


class Linear(BaseModule):
    def __init__(self, path: Path) -> None:
        super().__init__(dict(type='Pretrained', prefix='linear', checkpoint=str(path)))
        self.weight, self.bias = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))


def by_prefixed_init_cfg(path: Path) -> dict[str, Tensor]:
    model = Linear(path)
    model.init_weights()
    return {f'linear.{name}': value for name, value in model.state_dict().items()}


def by_runner(path: Path) -> dict[str, Tensor]:
    runner = Runner(TrainedNet(), str(path.parent / 'run'), experiment_name=path.parent.name, log_level='ERROR')
    runner.load_checkpoint(str(path), strict=True)
    return runner.model.state_dict()


def by_load_from(path: Path) -> dict[str, Tensor]:
    name = f'{path.parent.name}_load_from'
    runner = Runner(
        TrainedNet(), str(path.parent / 'run'), load_from=str(path), experiment_name=name, log_level='ERROR'
    )
    runner.load_or_resume()
    return runner.model.state_dict()


WAYS = [by_loader, by_function, by_init_cfg, by_prefixed_init_cfg, by_runner, by_load_from]


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
@pytest.mark.parametrize('way', WAYS)
def test_good_files_are_loaded(tmp_path: Path, way: Callable[[Path], dict[str, Tensor]], name: str) -> None:
    write_checkpoint({'state_dict': WEIGHTS}, tmp_path / name)
    loaded = way(tmp_path / name)
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[key], value) for key, value in WEIGHTS.items())


@pytest.mark.parametrize('way', WAYS)
def test_bombs_are_refused(tmp_path: Path, bomb: Any, way: Callable[[Path], dict[str, Tensor]]) -> None:
    torch.save({'state_dict': WEIGHTS, 'meta': bomb}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=REFUSED):
        way(tmp_path / 'a.pth')
    assert not bomb.marker.exists()


def test_trust_is_the_way_through(tmp_path: Path, bomb: Any) -> None:
    torch.save({'state_dict': WEIGHTS, 'meta': bomb}, tmp_path / 'a.pth')
    with trust_checkpoints(True):
        by_function(tmp_path / 'a.pth')
    assert bomb.marker.exists()


def test_every_scheme_of_mmengine_is_ours() -> None:
    assert '' in CheckpointLoader._schemes
    assert len(CheckpointLoader._schemes) > 5
    assert set(CheckpointLoader._schemes.values()) == {load_from_safe}


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'a checkpoint file but .*none\.pth does not exist'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'none.pth'))


@pytest.mark.parametrize('name', ['file:///tmp/a.pth', 'ftp://host/a.pth', 'pavi://a', 'petrol://a'])
def test_storage_that_has_to_be_copied_by_hand(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf'Expected a file or URL but got {name}\. Copy it to a local file'):
        CheckpointLoader.load_checkpoint(name)


def test_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    assert local_file('~/a.pth') == tmp_path / 'a.pth'
    assert local_file(tmp_path / 'a.pth') == tmp_path / 'a.pth'


# Downloads


class Web:
    """Stands in for torch's downloader: serves one file and remembers what was asked for."""

    def __init__(self, content: Any, broken: Exception | None = None) -> None:
        self.content, self.broken, self.asked = content, broken, []

    def __call__(self, url: str, target: str, *args: Any, **kwargs: Any) -> None:
        self.asked.append(url)
        if self.broken is not None:
            raise self.broken
        write_checkpoint(self.content, target)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Web:
    served = Web({'state_dict': WEIGHTS})
    monkeypatch.setattr(torch.hub, 'download_url_to_file', served)
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    return served


@pytest.mark.parametrize(
    'url', ['https://host/x/net.pth', 'http://host/net.pth?download=1', 'https://h/net.safetensors']
)
def test_a_download_is_kept(web: Web, tmp_path: Path, url: str) -> None:
    for _ in range(2):
        content = CheckpointLoader.load_checkpoint(url)
        assert torch.equal(content['state_dict']['linear.bias'], WEIGHTS['linear.bias'])
    assert web.asked == [url]
    assert [path.stem for path in (tmp_path / 'hub/checkpoints').iterdir()] == ['net']


def test_a_bomb_from_the_web_is_refused(web: Web, bomb: Any) -> None:
    web.content = {'x': bomb}
    with pytest.raises(CheckpointError, match=REFUSED):
        CheckpointLoader.load_checkpoint('https://host/net.pth')
    assert not bomb.marker.exists()


@pytest.mark.parametrize('error', [URLError('no route'), IncompleteRead(b''), TimeoutError('slow')])
def test_a_failed_download(web: Web, tmp_path: Path, error: Exception) -> None:
    web.broken = error
    message = r'to download https://host/net\.pth but got .*Download it by hand to .*hub/checkpoints/net\.pth'
    with pytest.raises(CheckpointError, match=message):
        CheckpointLoader.load_checkpoint('https://host/net.pth')


@pytest.mark.parametrize(
    ('name', 'table', 'key'),
    [
        ('torchvision://resnet18', 'get_torchvision_models', 'resnet18'),
        ('modelzoo://resnet18', 'get_torchvision_models', 'resnet18'),
        ('torchvision://resnet50.imagenet1k_v2', 'get_torchvision_models', 'resnet50.imagenet1k_v2'),
        ('open-mmlab://resnet50_v1c', 'get_external_models', 'resnet50_v1c'),
        ('openmmlab://resnet50_v1c', 'get_external_models', 'resnet50_v1c'),
    ],
)
def test_names_of_model_zoos(web: Web, name: str, table: str, key: str) -> None:
    CheckpointLoader.load_checkpoint(name)
    assert web.asked == [getattr(checkpoint_schemes.host, table)()[key]]


def test_a_deprecated_name_still_works(web: Web) -> None:
    old, new = next(iter(checkpoint_schemes.host.get_deprecated_model_names().items()))
    CheckpointLoader.load_checkpoint(f'open-mmlab://{old}')
    assert web.asked == [checkpoint_schemes.host.get_external_models()[new]]


def test_a_users_own_zoo_lists_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'open_mmlab.json').write_text(json.dumps({'mine': 'files/net.pth'}))
    write_checkpoint(WEIGHTS, tmp_path / 'files/net.pth')
    assert CheckpointLoader.load_checkpoint('open-mmlab://mine').keys() == WEIGHTS.keys()


def test_a_classifiers_backbone_is_taken_out(web: Web) -> None:
    web.content = {'state_dict': {'backbone.conv.weight': torch.ones(1), 'head.fc.weight': torch.ones(1)}}
    name = next(iter(checkpoint_schemes.host.get_mmcls_models()))
    assert list(CheckpointLoader.load_checkpoint(f'mmcls://{name}')['state_dict']) == ['conv.weight']


@pytest.mark.parametrize('prefix', ['torchvision://', 'open-mmlab://', 'mmcls://'])
def test_an_unknown_name(prefix: str) -> None:
    with pytest.raises(CheckpointError, match=rf"a model that {prefix} knows but got 'nope'\. Give a file or URL"):
        CheckpointLoader.load_checkpoint(f'{prefix}nope')


def test_object_stores_are_read_through_mmengine(tmp_path: Path, bomb: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'good.pth')
    torch.save({'x': bomb}, tmp_path / 'bad.pth')
    monkeypatch.setattr(
        checkpoint_schemes.fileio, 'get', lambda url: (tmp_path / url.removeprefix('s3://bucket/')).read_bytes()
    )
    assert CheckpointLoader.load_checkpoint('s3://bucket/good.pth')['state_dict'].keys() == WEIGHTS.keys()
    with pytest.raises(CheckpointError, match=f'the stream asks for more.*{REFUSED}'):
        CheckpointLoader.load_checkpoint('s3://bucket/bad.pth')
    assert not bomb.marker.exists()
