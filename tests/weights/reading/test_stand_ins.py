"""Hyper-parameters of other trainers do not stand in the way of the weights, and none of their code runs."""

from __future__ import annotations

import argparse
import collections
import copyreg
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import read_checkpoint
from kdplugin.weights.reading.stand_ins import DICTS, FORGOTTEN, stand_ins

WEIGHTS = {'w': torch.arange(3.0)}


class Tripwire:
    """A class of a library: it must not be touched while a file is read."""

    armed = False

    def __setstate__(self, state: Any) -> None:
        assert not Tripwire.armed, 'code of the library ran'
        self.__dict__.update(state)

    def __setattr__(self, key: str, value: Any) -> None:
        assert not Tripwire.armed, 'code of the library ran'
        object.__setattr__(self, key, value)


class TripwireDict(Tripwire, dict[Any, Any]):
    """Likewise, a container."""

    def __setitem__(self, key: Any, value: Any) -> None:
        assert not Tripwire.armed, 'code of the library ran'
        dict.__setitem__(self, key, value)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that installs a class under a qualified name, as if its library were there."""
    monkeypatch.setattr(Tripwire, 'armed', False)

    def install(qualified: str, base: type) -> type:
        module, name = qualified.rsplit('.', 1)
        made = type(name, (base,), {'__module__': module})
        parts = module.split('.')
        for depth in range(1, len(parts) + 1):
            path = '.'.join(parts[:depth])
            if sys.modules.get(path) is None:
                monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    return install


@pytest.mark.parametrize('qualified', DICTS)
def test_containers_become_dicts(tmp_path: Path, library: Any, qualified: str) -> None:
    hyper = library(qualified, TripwireDict)(lr=0.1, path=Path('data'), inner=[1, (2, None)])
    hyper.attribute = 3
    torch.save({'state_dict': WEIGHTS, 'hyper_parameters': hyper}, tmp_path / 'a.ckpt')
    Tripwire.armed = True
    read = read_checkpoint(tmp_path / 'a.ckpt')
    assert read['hyper_parameters'] == {'lr': 0.1, 'path': pathlib.PurePosixPath('data'), 'inner': [1, (2, None)]}
    assert torch.equal(read['state_dict']['w'], WEIGHTS['w'])


@pytest.mark.parametrize('qualified', [name for name in FORGOTTEN if name != 'typing.Any'])
def test_other_objects_are_forgotten(tmp_path: Path, library: Any, qualified: str) -> None:
    made = library(qualified, Tripwire)()
    made.content = {'x': [1, 2], 'type': dict, 'any': Any, 'cache': collections.defaultdict(dict)}
    torch.save({'state_dict': WEIGHTS, 'hyper_parameters': {'model': made}}, tmp_path / 'a.ckpt')
    Tripwire.armed = True
    read = read_checkpoint(tmp_path / 'a.ckpt')['hyper_parameters']['model']
    assert type(read).__name__ == qualified.rsplit('.', 1)[-1]
    assert not isinstance(read, Tripwire)
    assert vars(read) == {}


@pytest.mark.parametrize('opcode', ['call', '__new__'])
def test_arguments_and_items_are_forgotten(tmp_path: Path, library: Any, opcode: str) -> None:
    """Pickle makes objects in two ways, and either may pass arguments and items."""
    made = library('omegaconf.dictconfig.DictConfig', Tripwire)
    new = copyreg.__newobj__  # type: ignore[attr-defined]
    how = (made, ({'lr': 1}, 2)) if opcode == 'call' else (new, (made, {'lr': 1}, 2))
    made.__reduce_ex__ = lambda self, protocol: (*how, {'state': 3}, None, iter({'item': 4}.items()))
    made.__init__ = lambda self, *args: None
    torch.save({'state_dict': WEIGHTS, 'config': made()}, tmp_path / 'a.ckpt')
    read = read_checkpoint(tmp_path / 'a.ckpt')['config']
    assert (type(read).__name__, vars(read)) == ('DictConfig', {})


def test_callbacks_under_their_classes_stay_apart(tmp_path: Path, library: Any) -> None:
    """Older Lightning files key the state of callbacks by the class itself."""
    one = library('pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint', Tripwire)
    two = library('pytorch_lightning.callbacks.early_stopping.EarlyStopping', Tripwire)
    torch.save({'state_dict': WEIGHTS, 'callbacks': {one: {'best': 1}, two: {'wait': 2}}}, tmp_path / 'a.ckpt')
    assert list(read_checkpoint(tmp_path / 'a.ckpt')['callbacks'].values()) == [{'best': 1}, {'wait': 2}]


@pytest.mark.parametrize('new_format', [True, False])
def test_arguments_of_a_command_line(tmp_path: Path, new_format: bool) -> None:
    """timm, DETR and DINO save their parsed arguments."""
    args = argparse.Namespace(lr=0.1, output_dir=Path('runs'), names=['a'], table=collections.defaultdict(list, x=[1]))
    torch.save({'model': WEIGHTS, 'args': args}, tmp_path / 'a.pth', _use_new_zipfile_serialization=new_format)
    read = read_checkpoint(tmp_path / 'a.pth')['args']
    assert type(read) is argparse.Namespace
    assert (read.lr, read.output_dir, read.names) == (0.1, pathlib.PurePosixPath('runs'), ['a'])
    assert read.table == {'x': [1]}


def places() -> list[Any]:
    return [
        pytest.param(lambda bomb: argparse.Namespace(x=bomb), id='namespace'),
        pytest.param(lambda bomb: collections.defaultdict(list, x=bomb), id='defaultdict'),
        pytest.param(lambda bomb: {'x': [bomb]}, id='list'),
    ]


@pytest.mark.parametrize('place', places())
def test_bombs_inside_stand_ins_do_not_go_off(tmp_path: Path, bomb: Any, place: Any) -> None:
    torch.save({'state_dict': WEIGHTS, 'args': place(bomb)}, tmp_path / 'a.ckpt')
    with pytest.raises(CheckpointError, match=r'could run code \((posix|nt)\.system\)\. Nothing was executed'):
        read_checkpoint(tmp_path / 'a.ckpt')
    assert not bomb.marker.exists()


def test_other_classes_are_still_refused(tmp_path: Path, library: Any) -> None:
    made = library('somebody.config.Config', Tripwire)()
    torch.save({'state_dict': WEIGHTS, 'hyper_parameters': made}, tmp_path / 'a.ckpt')
    with pytest.raises(CheckpointError, match=r'could run code \(somebody\.config\.Config\)\. Nothing was executed'):
        read_checkpoint(tmp_path / 'a.ckpt')


def test_stand_ins_are_classes_of_ours_or_of_the_standard_library() -> None:
    """None of them is a function, and none comes from a library that a file may name."""
    kinds = [entry[0] if isinstance(entry, tuple) else entry for entry in stand_ins()]
    assert all(isinstance(kind, type) for kind in kinds)
    ours = {kind.__mro__[1].__module__ for kind in kinds if kind.__module__.startswith('kdplugin')}
    assert ours == {'kdplugin.weights.reading.stand_ins'}
    others = {kind for kind in kinds if not kind.__module__.startswith('kdplugin')}
    assert others == {
        argparse.Namespace, collections.defaultdict, dict, list, pathlib.PurePosixPath, pathlib.PureWindowsPath
    }  # fmt: skip
