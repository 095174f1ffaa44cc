"""Tensors of a file stay on disk until they are asked for, and leave memory after they were given."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading import files
from kdplugin.weights.reading.files import PickleSource, SafetensorsSource, open_file
from kdplugin.weights.reading.io import read_checkpoint
from kdplugin.weights.reading.tensor_source import MemorySource
from kdplugin.weights.reading.unwrap import state_dict_of

STATE = {
    'blocks.10.w': torch.arange(6.0).reshape(2, 3),
    'blocks.2.w': torch.ones(3, dtype=torch.bfloat16),
    'count': torch.tensor(7),
    'empty': torch.zeros(0, 3),
    'mask': torch.tensor([True, False]),
    'small': torch.ones(2).to(torch.float8_e4m3fn),
    'a.w': torch.ones(1, dtype=torch.complex64),
}
OLD = {key: value for key, value in STATE.items() if key != 'small'}  # the format knows no 8-bit floats
KINDS = ['safetensors', 'pth', 'old']


def write(path: Path, state: dict[str, Tensor], kind: str) -> Path:
    path = path.with_suffix('.safetensors' if kind == 'safetensors' else '.pth')
    if kind == 'safetensors':
        safetensors.torch.save_file(state, path)
    else:
        torch.save({'state_dict': state}, path, _use_new_zipfile_serialization=kind == 'pth')
    return path


@pytest.mark.parametrize('kind', KINDS)
def test_values_shapes_and_types_are_those_of_the_file(tmp_path: Path, kind: str) -> None:
    state = OLD if kind == 'old' else STATE
    source = open_file(write(tmp_path / 'a', state, kind), state_dict_of)
    assert type(source) is {'safetensors': SafetensorsSource, 'pth': PickleSource, 'old': MemorySource}[kind]
    assert set(source) == set(state)
    assert len(source) == len(state)
    for key, value in state.items():
        assert source.shape(key) == tuple(value.shape)
        assert source.dtype(key) == source[key].dtype == value.dtype
        assert torch.equal(source[key].view(torch.uint8) if value.itemsize == 1 else source[key],
                           value.view(torch.uint8) if value.itemsize == 1 else value)  # fmt: skip


def test_order_is_the_files_or_the_natural_one(tmp_path: Path) -> None:
    assert list(open_file(write(tmp_path / 'a', STATE, 'pth'), state_dict_of)) == list(STATE)
    natural = ['a.w', 'blocks.2.w', 'blocks.10.w', 'count', 'empty', 'mask', 'small']
    assert list(open_file(write(tmp_path / 'a', STATE, 'safetensors'), dict)) == natural


@pytest.mark.parametrize('kind', KINDS)
def test_a_tensor_that_is_not_there(tmp_path: Path, kind: str) -> None:
    source = open_file(write(tmp_path / 'a', OLD, kind), state_dict_of)
    assert 'b' not in source
    for read in (source.__getitem__, source.shape, source.dtype):
        with pytest.raises(KeyError):
            read('b')


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_what_is_given_is_a_copy(tmp_path: Path, kind: str) -> None:
    """Writing into it reaches neither the file nor the next reader, and it keeps no more memory than its own."""
    path = write(tmp_path / 'a', STATE, kind)
    before = path.read_bytes()
    source = open_file(path, state_dict_of)
    value = source['blocks.10.w']
    assert value.untyped_storage().nbytes() == value.nbytes
    value.fill_(5)
    assert torch.equal(source['blocks.10.w'], STATE['blocks.10.w'])
    assert path.read_bytes() == before


def test_views_and_tied_tensors_and_parameters(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {'base': base, 'turned': base.t(), 'part': base[1:], 'leaf': nn.Parameter(base)}
    source = open_file(write(tmp_path / 'a', state, 'pth'), state_dict_of)
    assert all(torch.equal(source[key], value) for key, value in state.items())
    assert not source['leaf'].requires_grad


# Memory


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_the_file_is_mapped_anew_after_a_window(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {f'{i}': torch.full((100,), float(i)) for i in range(10)}
    source = open_file(write(tmp_path / 'a', state, kind), state_dict_of)
    monkeypatch.setattr(files, 'WINDOW', 800)
    mapped, original = [], source._map
    monkeypatch.setattr(source, '_map', lambda: mapped.append(original()))
    assert [source[key][0].item() for key in source] == list(range(10))
    assert len(mapped) == 4  # before the 3rd, 5th, 7th and 9th of 400 bytes each


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
@pytest.mark.parametrize('change', ['written', 'gone'])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, kind: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / 'a', {'a': torch.zeros(4), 'b': torch.zeros(4)}, kind)
    source = open_file(path, state_dict_of)
    monkeypatch.setattr(files, 'WINDOW', 1)
    source['a']
    path.unlink()
    if change == 'written':
        write(tmp_path / 'a', {'a': torch.ones(4), 'b': torch.ones(5)}, kind)
    message = 'to stay as it was but it changed while it was read. Start again' if change == 'written' else 'is gone'
    with pytest.raises(CheckpointError, match=message):
        source['b']


MEASURE = """
import sys
sys.modules['mmengine'] = None  # it would be imported while the first file is read
from kdplugin.weights.reading import files
from kdplugin.weights.reading.unwrap import state_dict_of

def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096 / 2**20

for path in sys.argv[1:]:
    start = resident()
    files.WINDOW = 256 << 20
    source = files.open_file(files.Path(path), state_dict_of)
    shapes = [source.shape(key) for key in source]
    small = source['small']
    assert small.tolist() == [1.0, 1.0]
    print(resident() - start)
    files.WINDOW = 50 << 20
    most = 0
    for key in source:
        value = source[key]
        most = max(most, resident() - start)
        del value
    print(most)
    del source
"""


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='reads the size of a process from /proc')
def test_memory_follows_what_is_read(tmp_path: Path) -> None:
    """Of a file of 200 MiB, a small tensor costs next to nothing, and all in turn a window and a tensor."""
    state = {**{f'large.{i}': torch.zeros(20 << 18) for i in range(10)}, 'small': torch.ones(2)}
    paths = [write(tmp_path / 'a', state, kind) for kind in ('safetensors', 'pth')]
    assert all(path.stat().st_size > 200 << 20 for path in paths)
    returning = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '1000000'}  # else the allocator keeps what was freed
    run = subprocess.run(
        [sys.executable, '-c', MEASURE, *paths], capture_output=True, text=True, check=True, env=returning
    )
    one, most, other, other_most = map(float, run.stdout.split())
    assert max(one, other) < 15
    assert 40 < most < 110
    assert 40 < other_most < 110


def test_shapes_are_read_from_the_header(tmp_path: Path) -> None:
    """Of gigabytes that are a hole in the file, a small part is read."""
    size = 4 << 30
    header = json.dumps({
        'large': {'dtype': 'BF16', 'shape': [1 << 15, 1 << 16], 'data_offsets': [8, 8 + size]},
        'small': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]},
    }).encode()  # fmt: skip
    path = tmp_path / 'a.safetensors'
    with path.open('wb') as file:
        file.write(struct.pack('<Q', len(header)) + header + struct.pack('<2f', 1.0, 2.0))
        file.truncate(8 + len(header) + 8 + size)
    source = open_file(path, dict)
    assert (source.shape('large'), source.dtype('large')) == ((1 << 15, 1 << 16), torch.bfloat16)
    assert source['small'].tolist() == [1.0, 2.0]


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_a_file_that_the_system_does_not_map(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError('unable to mmap 5 bytes from file <a>: Cannot allocate memory (12)')

    path = write(tmp_path / 'a', {'w': torch.zeros(1)}, kind)
    monkeypatch.setattr(torch, 'load', refuse)
    monkeypatch.setattr(safetensors, 'safe_open', refuse)
    message = r'Expected room to map .*a\.(pth|safetensors) but the system refused it \(.*memory.*in shards'
    with pytest.raises(CheckpointError, match=message):
        open_file(path, state_dict_of)


# Damaged and foreign files


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('part', [0.01, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, kind: str, part: float) -> None:
    path = write(tmp_path / 'a', {'w': torch.zeros(400)}, kind)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=r'Expected a .* but .*a\.(pth|safetensors) is damaged.*Copy it again'):
        open_file(path, state_dict_of)


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_broken_bytes_give_one_kind_of_error(tmp_path: Path, kind: str) -> None:
    """Any bit of the part that describes the tensors; values have no checksum in either format when read lazily."""
    path = write(tmp_path / 'a', {'w': torch.zeros(4), 'v': torch.ones(3)}, kind)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, min(len(whole), 700), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        try:
            source = open_file(path, state_dict_of)
            assert all(source[key].shape == source.shape(key) for key in source)
        except CheckpointError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize('text', [b'version https://git-lfs.github.com/spec/v1\n', b'<!DOCTYPE html>'])
@pytest.mark.parametrize('name', ['a.safetensors', 'a.bin'])
def test_text_is_shown(tmp_path: Path, text: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(CheckpointError, match=rf"damaged.*\(it begins with b'{text[:10].decode()}.*Copy it again"):
        open_file(tmp_path / name, state_dict_of)


@pytest.mark.parametrize('kind', ['safetensors', 'pth'])
def test_empty_files(tmp_path: Path, kind: str) -> None:
    with pytest.raises(
        CheckpointError, match=r'Expected a state dict of tensors in .* but got no entries\. Pass a file'
    ):
        open_file(write(tmp_path / 'a', {}, kind), state_dict_of)


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=rf'Expected a checkpoint file but .*{name} does not exist'):
        open_file(tmp_path / name, state_dict_of)


@pytest.mark.parametrize('new_format', [True, False])
def test_bombs_do_not_go_off(tmp_path: Path, bomb: Any, new_format: bool) -> None:
    torch.save({'w': torch.zeros(1), 'x': bomb}, tmp_path / 'a.bin', _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r'a\.bin asks for more .*Nothing was executed.*trust_checkpoint=True'):
        open_file(tmp_path / 'a.bin', state_dict_of)
    assert not bomb.marker.exists()


@pytest.mark.parametrize('new_format', [True, False])
def test_trust_unpickles(tmp_path: Path, bomb: Any, new_format: bool) -> None:
    content = {'state_dict': OLD, 'x': bomb}
    torch.save(content, tmp_path / 'a.bin', _use_new_zipfile_serialization=new_format)
    assert list(open_file(tmp_path / 'a.bin', state_dict_of, trust_checkpoint=True)) == list(OLD)
    assert bomb.marker.exists()


def test_strangers_are_named_with_the_file(tmp_path: Path) -> None:
    torch.save({'w': torch.zeros(1), 'epoch': 3}, tmp_path / 'a.bin')
    take: Callable[..., Any] = lambda content: state_dict_of(content, 'a.bin')  # noqa: E731
    with pytest.raises(CheckpointError, match=r"in a\.bin but got non-tensor entries such as \['epoch'\]"):
        open_file(tmp_path / 'a.bin', take)


def test_reading_whole_and_lazily_agree(tmp_path: Path) -> None:
    path = write(tmp_path / 'a', STATE, 'pth')
    whole, mapped = read_checkpoint(path)['state_dict'], read_checkpoint(path, mmap=True)['state_dict']
    assert str(whole) == str(mapped) == str(STATE)
