"""A sharded checkpoint is read a shard at a time, and must hold what its index says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading import sharded
from kdplugin.weights.reading.files import open_file
from kdplugin.weights.reading.sharded import ShardedSource, read_index
from kdplugin.weights.reading.tensor_source import TensorSource

KINDS = ['safetensors', 'bin']
FORMATS = [*KINDS, 'old']
SHARDS: list[dict[str, Tensor]] = [
    {'blocks.10.w': torch.arange(4.0), 'blocks.2.w': torch.ones(2, 3)},
    {'head.bias': torch.zeros(5, dtype=torch.bfloat16)},
    {'blocks.1.w': torch.full((2,), 7)},
]
NATURAL = ['blocks.1.w', 'blocks.2.w', 'blocks.10.w', 'head.bias']


def shard(number: int, kind: str) -> str:
    return f'model-{number + 1:05}-of-00003.{"safetensors" if kind == "safetensors" else "bin"}'


def save(path: Path, tensors: dict[str, Any], kind: str) -> None:
    if kind == 'safetensors':
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind != 'old')


def write(folder: Path, kind: str, shards: list[dict[str, Tensor]] = SHARDS, **extra: str) -> Path:
    """Write shards and an index; ``extra`` are entries of the index besides the true ones."""
    weight_map = {}
    for number, tensors in enumerate(shards):
        save(folder / shard(number, kind), tensors, kind)
        weight_map.update(dict.fromkeys(tensors, shard(number, kind)))
    index = folder / f'model.{"safetensors" if kind == "safetensors" else "bin"}.index.json'
    index.write_text(json.dumps({'metadata': {'total_size': 1}, 'weight_map': {**weight_map, **extra}}, sort_keys=True))
    return index


@pytest.mark.parametrize('kind', FORMATS)
def test_values_shapes_types_and_natural_order(tmp_path: Path, kind: str) -> None:
    source = ShardedSource(write(tmp_path, kind))
    assert list(source) == NATURAL
    assert len(source) == 4
    for key, value in ((key, value) for tensors in SHARDS for key, value in tensors.items()):
        assert source.shape(key) == tuple(value.shape)
        assert source.dtype(key) == value.dtype
        assert torch.equal(source[key], value)
    assert 'blocks.1.w' in source
    assert 'blocks.3.w' not in source
    for read in (source.__getitem__, source.shape, source.dtype):
        with pytest.raises(KeyError):
            read('blocks.3.w')


@pytest.mark.parametrize('kind', FORMATS)
def test_a_tensor_opens_its_own_shard_alone(tmp_path: Path, kind: str) -> None:
    """The others could not even be opened."""
    index = write(tmp_path, kind)
    for number in (0, 2):
        (tmp_path / shard(number, kind)).write_bytes(b'garbage')
    source = ShardedSource(index)
    assert list(source) == NATURAL
    assert source.shape('head.bias') == (5,)
    assert torch.equal(source['head.bias'], SHARDS[1]['head.bias'])
    with pytest.raises(CheckpointError, match=rf'{shard(0, kind)} is damaged .*\(it begins with .*Copy it again'):
        source['blocks.2.w']
    assert torch.equal(source['head.bias'], SHARDS[1]['head.bias'])


def mapped(folder: Path) -> set[str]:
    """Return the files of a folder that are mapped into this process."""
    return {line.split('/')[-1] for line in Path('/proc/self/maps').read_text().splitlines() if str(folder) in line}


@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='reads what a process maps from /proc')
@pytest.mark.parametrize('kind', KINDS)
def test_one_shard_is_mapped_at_a_time(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is closed before the next is opened."""

    def open_alone(*args: Any) -> TensorSource:
        assert mapped(tmp_path) == set()
        return open_file(*args)

    monkeypatch.setattr(sharded, 'open_file', open_alone)
    source = ShardedSource(write(tmp_path, kind))
    assert mapped(tmp_path) == set()
    kept = []
    for number, tensors in [*enumerate(SHARDS), *enumerate(SHARDS)]:
        for key in tensors:
            kept.append(source[key])
            assert mapped(tmp_path) == {shard(number, kind)}
    del source
    assert mapped(tmp_path) == set()
    assert torch.equal(kept[0], SHARDS[0]['blocks.10.w'])


def test_shapes_are_known_after_the_first_look(tmp_path: Path) -> None:
    source = ShardedSource(write(tmp_path, 'bin'))
    shapes = [source.shape(key) for key in source]
    for number in range(3):
        (tmp_path / shard(number, 'bin')).unlink()
    assert [source.shape(key) for key in source] == shapes == [(2,), (2, 3), (4,), (5,)]


@pytest.mark.parametrize('kind', KINDS)
def test_missing_shards_are_named_at_once(tmp_path: Path, kind: str) -> None:
    index = write(tmp_path, kind)
    for number in (2, 0):
        (tmp_path / shard(number, kind)).unlink()
    message = (
        rf'Expected the 3 shards that .*index\.json names but 2 are missing: {shard(0, kind)}, {shard(2, kind)}\. Copy'
    )
    with pytest.raises(CheckpointError, match=message):
        ShardedSource(index)


@pytest.mark.parametrize('kind', FORMATS)
def test_a_tensor_that_its_shard_lacks(tmp_path: Path, kind: str) -> None:
    source = ShardedSource(write(tmp_path, kind, **{'blocks.3.w': shard(0, kind)}))
    message = (
        rf'Expected 3 tensors of .*index\.json in {shard(0, kind)} but it lacks 1: blocks\.3\.w\. Copy the index and'
    )
    for _ in range(2):
        with pytest.raises(CheckpointError, match=message):
            source.shape('blocks.2.w')


@pytest.mark.parametrize('kind', FORMATS)
def test_a_tensor_in_two_shards(tmp_path: Path, kind: str) -> None:
    twice = [SHARDS[0], {**SHARDS[1], 'blocks.2.w': torch.zeros(2, 3)}, SHARDS[2]]
    source = ShardedSource(write(tmp_path, kind, twice))  # the index names the second
    message = rf'{shard(0, kind)} holds 1 that .* puts elsewhere: blocks\.2\.w \(in {shard(1, kind)}\)\. Copy the index'
    with pytest.raises(CheckpointError, match=message):
        source['blocks.10.w']


def test_an_index_with_a_tensor_in_two_shards(tmp_path: Path) -> None:
    index = write(tmp_path, 'bin')
    index.write_text('{"weight_map": {"a": "1.bin", "b": "1.bin", "a": "2.bin"}}')
    with pytest.raises(CheckpointError, match=r"ValueError: 'a' in 1\.bin and in 2\.bin\. Copy it again"):
        ShardedSource(index)


def test_tensors_that_the_index_does_not_name_are_said_aloud(tmp_path: Path) -> None:
    index = write(tmp_path, 'bin')
    save(tmp_path / shard(1, 'bin'), {**SHARDS[1], 'extra': torch.zeros(1)}, 'bin')
    source = ShardedSource(index)
    with pytest.warns(UserWarning, match=rf'{shard(1, "bin")} holds 1 tensors that .* does not name, such as extra'):
        source['head.bias']
    assert 'extra' not in source


@pytest.mark.parametrize('kind', ['bin', 'old'])
def test_a_bomb_in_a_shard_does_not_go_off(tmp_path: Path, kind: str, bomb: Any) -> None:
    index = write(tmp_path, kind)
    save(tmp_path / shard(1, kind), {**SHARDS[1], 'x': bomb}, kind)
    source = ShardedSource(index)
    with pytest.raises(CheckpointError, match=rf'{shard(1, kind)} asks for more .*Nothing was executed'):
        source['head.bias']
    assert not bomb.marker.exists()


@pytest.mark.parametrize('kind', ['bin', 'old'])
def test_strangers_in_a_shard(tmp_path: Path, kind: str) -> None:
    index = write(tmp_path, kind)
    save(tmp_path / shard(1, kind), {**SHARDS[1], 'epoch': 3}, kind)
    with pytest.raises(
        CheckpointError, match=r"in a shard of .*index\.json but got non-tensor entries such as \['epoch'"
    ):
        ShardedSource(index)['head.bias']


@pytest.mark.parametrize('kind', KINDS)
def test_a_truncated_shard(tmp_path: Path, kind: str) -> None:
    index = write(tmp_path, kind)
    path = tmp_path / shard(1, kind)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=rf'{shard(1, kind)} is damaged'):
        ShardedSource(index)['head.bias']


@pytest.mark.parametrize(
    'text',
    [
        '', '{', '[]', '{}', '{"weight_map": {}}', '{"weight_map": ["a"]}', '{"weight_map": {"a": 1}}', '\udcff',
        '[' * 100_000,
        *(json.dumps({'weight_map': {'a': name}}) for name in ('../a.bin', '/etc/passwd', 'x/a.bin', '..', '.', '')),
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_what_is_not_an_index(tmp_path: Path, text: str) -> None:
    """Nor may it point outside its folder."""
    index = tmp_path / 'model.bin.index.json'
    index.write_text(text, errors='surrogateescape')
    message = r'Expected an index with a weight_map of tensors to files beside it but .*index\.json has .*Copy it again'
    with pytest.raises(CheckpointError, match=message):
        read_index(index)
