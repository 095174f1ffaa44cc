"""Checkpoints are read without running code from them, and written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading import io as weights_io
from kdplugin.weights.reading.io import (
    atomic_file,
    hash_file,
    hash_tensors,
    read_checkpoint,
    state_dict_of,
    write_checkpoint,
)

DAMAGED = r'Expected a checkpoint but .* is damaged or not a PyTorch file \(.*\)\. Copy it again'


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        'conv.weight': torch.randn(4, 3, 2, 2, generator=generator),
        'conv.bias': torch.randn(4, generator=generator).bfloat16(),
        'bn.num_batches_tracked': torch.tensor(7),
        'mask': torch.tensor([True, False]),
        'empty': torch.zeros(0, 3),
    }


def assert_equal(read: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert read.keys() == expected.keys()
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


def saved(content: Any, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


# Reading what is safe


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.ckpt', '.safetensors'])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f'model{suffix}'
    write_checkpoint({'state_dict': weights(), 'meta': {'epoch': 3}}, path)
    content = read_checkpoint(path)
    assert_equal(content['state_dict'], weights())
    assert content.get('meta') == (None if suffix == '.safetensors' else {'epoch': 3})


@pytest.mark.parametrize('new_format', [True, False])
def test_what_training_checkpoints_hold_besides_tensors(tmp_path: Path, new_format: bool) -> None:
    meta = dict(
        scalars=[np.float64(1.5), np.float32(0.25), np.float16(2), np.int64(-3), np.uint8(200), np.bool_(True)],
        array=np.arange(6, dtype=np.int32).reshape(2, 3),
        flags=np.array([True, False]),
        classes=('a', 'b'),
        palette=[[0, 1, 2]],
        nothing=None,
        names={'x', 'y'},
    )
    path = saved({'meta': meta, 'state_dict': weights()}, tmp_path / 'a.pth', _use_new_zipfile_serialization=new_format)
    read = read_checkpoint(path)['meta']
    assert [(type(value), value) for value in read['scalars']] == [(type(v), v) for v in meta['scalars']]
    for name in ('array', 'flags'):
        assert read[name].dtype == meta[name].dtype
        np.testing.assert_array_equal(read[name], meta[name])
    rest = ('classes', 'palette', 'nothing', 'names')
    assert [read[name] for name in rest] == [meta[name] for name in rest]


def test_a_bare_state_dict_keeps_its_versions(tmp_path: Path) -> None:
    path = saved(nn.BatchNorm2d(2).state_dict(), tmp_path / 'a.pth')
    read = read_checkpoint(path)
    assert isinstance(read, OrderedDict)
    assert read._metadata[''] == {'version': 2}


def test_streams_are_read_from_where_they_stand() -> None:
    stream = io.BytesIO()
    torch.save(weights(), stream)
    stream.seek(0)
    assert_equal(read_checkpoint(stream), weights())


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', str(tmp_path))
    saved(weights(), tmp_path / 'a.pth')
    assert_equal(read_checkpoint('~/a.pth'), weights())


# Damaged and foreign files


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'a checkpoint file but .*none\.pth does not exist\. Check the path'):
        read_checkpoint(tmp_path / 'none.pth')
    with pytest.raises(CheckpointError, match=r'a checkpoint file but .* is a folder\. Check the path'):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize('trust', [True, False])
@pytest.mark.parametrize('new_format', [True, False])
@pytest.mark.parametrize('part', [0.01, 0.2, 0.5, 0.8, 0.99])
def test_truncated_file(tmp_path: Path, part: float, new_format: bool, trust: bool) -> None:
    content = {'state_dict': {'w': torch.zeros(400)}}
    path = saved(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=new_format)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=DAMAGED):
        read_checkpoint(path, trust_checkpoint=trust)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / 'a.pth').touch()
    with pytest.raises(CheckpointError, match=r'damaged or not a PyTorch file \(it ends too early\)'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('text', ['hello', '<!DOCTYPE html><html>', 'version https://git-lfs.github.com/spec/v1\n'])
def test_text_is_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / 'a.pth').write_text(text)
    with pytest.raises(CheckpointError, match=rf"damaged or not a PyTorch file \(it begins with b'{text[:5]}"):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('content', [[1, 2], torch.zeros(3), 5, None], ids=['list', 'tensor', 'number', 'none'])
def test_not_a_dict(tmp_path: Path, content: Any) -> None:
    message = rf'Expected a dict of tensors in .*a\.pth but got {type(content).__name__}\. Save model\.state_dict\(\)'
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved(content, tmp_path / 'a.pth'))


@pytest.mark.filterwarnings('ignore:.*TorchScript archive')
def test_a_torchscript_program(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'got a TorchScript program\. Save model\.state_dict\(\)'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('change', [lambda data: data[:-3], lambda data: b'', lambda data: b'text' + data])
def test_damaged_safetensors(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / 'a.safetensors'
    write_checkpoint(weights(), path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r'a safetensors file but .* is damaged \(.*\)\. Copy it again'):
        read_checkpoint(path)


# Taking the weights out


@pytest.mark.parametrize(
    'wrap',
    [
        lambda state: state,
        lambda state: {'state_dict': state, 'meta': {'x': 1}, 'optimizer': {}},
        lambda state: {'model': state, 'epoch': 4},
        lambda state: {'state_dict': {f'module.{name}': value for name, value in state.items()}},
    ],
    ids=['bare', 'mmengine', 'timm', 'parallel'],
)
def test_weights_are_found(wrap: Callable[[Any], Any]) -> None:
    assert_equal(state_dict_of(wrap(weights())), weights())


def test_a_prefix_that_only_some_have_stays() -> None:
    state = {'module.a': torch.zeros(1), 'b': torch.zeros(1)}
    assert state_dict_of(state).keys() == state.keys()


@pytest.mark.parametrize('content', [{}, {'state_dict': {}}])
def test_no_weights(content: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r'Expected a state dict of tensors in file\.pth but got no entries'):
        state_dict_of(content, 'file.pth')


def test_strangers_among_weights_are_named() -> None:
    with pytest.raises(CheckpointError, match=r"got non-tensor entries such as \['epoch', 'lr'\]\. Pass a file"):
        state_dict_of({'w': torch.zeros(1), 'epoch': 3, 'lr': 0.1})


# Writing


def unpicklable() -> dict[str, Any]:
    return {'w': torch.zeros(100), 'f': lambda: None}


def test_a_failing_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    write_checkpoint(weights(), path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        write_checkpoint(unpicklable(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_block_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with atomic_file(tmp_path / 'a') as temporary:
            Path(temporary).write_text('half')
            raise error

    with pytest.raises(error):
        interrupted()
    assert not list(tmp_path.iterdir())


def test_the_old_file_stands_until_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / 'new' / 'a'
    with atomic_file(target) as temporary:
        Path(temporary).write_text('first')
        assert Path(temporary).parent == target.parent
        assert not target.exists()
    with atomic_file(target) as temporary:
        Path(temporary).write_text('second')
        assert target.read_text() == 'first'
    assert target.read_text() == 'second'
    assert list(target.parent.iterdir()) == [target]


def test_content_and_name_reach_the_disk_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the content, then the new name, then the folder that holds the name."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(handle: int) -> None:
        mode = os.fstat(handle).st_mode
        events.append('folder' if stat.S_ISDIR(mode) else f'{os.fstat(handle).st_size} bytes')
        fsync(handle)

    def noting_replace(old: str, new: Path) -> None:
        events.append(f'name {Path(new).name}')
        replace(old, new)

    monkeypatch.setattr(os, 'fsync', noting_fsync)
    monkeypatch.setattr(os, 'replace', noting_replace)
    with atomic_file(tmp_path / 'a') as temporary:
        Path(temporary).write_text('12345')
    assert events == ['5 bytes', 'name a', 'folder']


def test_a_file_system_that_syncs_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, 'Invalid argument')
        fsync(handle)

    monkeypatch.setattr(os, 'fsync', refuse)
    write_checkpoint(weights(), tmp_path / 'a.pth')
    assert_equal(read_checkpoint(tmp_path / 'a.pth'), weights())


def test_a_disk_that_refuses_the_content_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, 'No space left on device')

    write_checkpoint(weights(), tmp_path / 'a.safetensors')
    before = (tmp_path / 'a.safetensors').read_bytes()
    monkeypatch.setattr(os, 'fsync', refuse)
    with pytest.raises(OSError, match='No space left'):
        write_checkpoint({'w': torch.zeros(3)}, tmp_path / 'a.safetensors')
    assert (tmp_path / 'a.safetensors').read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def umask() -> Iterator[int]:
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, name: str) -> None:
    write_checkpoint(weights(), tmp_path / name)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask == 0o640
    assert os.umask(umask) == umask


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_same_content_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ('one', 'another'):
        write_checkpoint(weights(), tmp_path / f'{name}{suffix}')
    assert hash_file(tmp_path / f'one{suffix}') == hash_file(tmp_path / f'another{suffix}')


def test_safetensors_takes_views_and_tied_weights(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {'base': base, 'tied': base, 'turned': base.t(), 'part': base[1:], 'leaf': nn.Parameter(base)}
    write_checkpoint({'state_dict': state, 'meta': {'x': object()}}, tmp_path / 'a.safetensors')
    read = safetensors.torch.load_file(tmp_path / 'a.safetensors')
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_safetensors_copies_only_what_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student of gigabytes is not held twice while it is written."""
    base = torch.arange(12.0).reshape(3, 4)
    state = {'a': base, 'part': torch.ones(5)[1:3], 'tied': base, 'turned': torch.ones(2, 3).t(), 'none': torch.ones(0)}
    given: dict[str, Tensor] = {}
    save_file = safetensors.torch.save_file

    def noting(own: dict[str, Tensor], *rest: Any, **more: Any) -> None:
        given.update(own)
        save_file(own, *rest, **more)

    monkeypatch.setattr(safetensors.torch, 'save_file', noting)
    write_checkpoint(state, tmp_path / 'a.safetensors')
    assert {key for key in state if given[key].data_ptr() == state[key].data_ptr()} == {'a', 'part', 'none'}
    read = safetensors.torch.load_file(tmp_path / 'a.safetensors')
    assert all(torch.equal(read[name], value) for name, value in state.items())


def test_safetensors_header_carries_metadata(tmp_path: Path) -> None:
    write_checkpoint(weights(), tmp_path / 'a.safetensors', metadata={'classes': '["a"]'})
    with safetensors.safe_open(tmp_path / 'a.safetensors', 'pt') as file:
        assert file.metadata() == {'classes': '["a"]'}


# Hashes


def test_hash_file_equals_hashlib(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(3_000_000)  # noqa: S311
    (tmp_path / 'a').write_bytes(data)
    assert hash_file(tmp_path / 'a') == hashlib.sha256(data).hexdigest()
    assert weights_io._digest(io.BytesIO(data)) == hashlib.sha256(data).hexdigest()


def test_hash_tensors_sees_every_change() -> None:
    base = {'a': torch.tensor([1.0, 2.0, 3.0, 4.0]), 'b': torch.tensor(0)}
    nudged = torch.tensor([1.0, 2.0, 3.0, struct.unpack('f', struct.pack('I', 0x40800001))[0]])
    variants = [
        base,
        {**base, 'a': nudged},
        {**base, 'a': base['a'].reshape(2, 2)},
        {**base, 'a': base['a'].view(torch.int32)},
        {**base, 'a': base['a'].double()},
        {**base, 'b': torch.tensor([0])},
        {'a': base['a']},
        {'a': base['a'], 'c': base['b']},
        {'a': base['b'], 'b': base['a']},
        {**base, 'c': torch.zeros(0)},
        {},
    ]
    assert len({hash_tensors(variant) for variant in variants}) == len(variants)


def test_hash_tensors_is_about_values() -> None:
    state = weights()
    expected = hash_tensors(state)
    assert len(expected) == 64
    assert hash_tensors(dict(reversed(state.items()))) == expected
    strided = torch.empty(4, 3, 2, 4)[..., ::2].copy_(state['conv.weight']).requires_grad_()
    assert not strided.is_contiguous()
    assert hash_tensors({**state, 'conv.weight': strided}) == expected
