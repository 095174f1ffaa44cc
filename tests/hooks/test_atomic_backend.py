"""The file backend for checkpoints writes whole files, reads them back, and is found by its name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from mmengine.fileio import get_file_backend

from kdplugin.errors import CheckpointError
from kdplugin.hooks import atomic_backend
from kdplugin.hooks.atomic_backend import AtomicLocalBackend, free_bytes, remove_leftovers
from kdplugin.weights.reading.seal import check_seal


def test_mmengine_finds_it_by_name() -> None:
    backend = get_file_backend(backend_args={'backend': 'kdplugin_atomic'})
    assert type(backend) is AtomicLocalBackend


@pytest.mark.parametrize('kind', [bytes, memoryview])
def test_what_is_put_is_there_and_nothing_else(tmp_path: Path, kind: type) -> None:
    target = tmp_path / 'new/folder/iter_1.pth'
    backend = AtomicLocalBackend()
    backend.put(kind(b'first'), target)
    backend.put(kind(b'second'), str(target))
    assert backend.get(target) == b'second'
    assert list(target.parent.iterdir()) == [target]


def test_a_disk_that_returns_other_bytes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / 'iter_1.pth'
    AtomicLocalBackend().put(b'whole', target)
    read_back = atomic_backend.hash_file

    def failing_disk(path: str) -> str:
        Path(path).write_bytes(b'other')
        return read_back(path)

    monkeypatch.setattr(atomic_backend, 'hash_file', failing_disk)
    message = r'read back what was written to .*iter_1\.pth but got other bytes\..*previous checkpoint is untouched'
    with pytest.raises(CheckpointError, match=message):
        AtomicLocalBackend().put(b'next', target)
    assert target.read_bytes() == b'whole'
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / 'iter_1.pth'
    AtomicLocalBackend().put(b'whole', target)

    def full(handle: int) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(atomic_backend.os, 'fsync', full)
    message = (
        r'room for the 4 bytes of .*iter_1\.pth but the disk is full or the quota spent \([\d,]+ bytes free\)\. Make'
    )
    with pytest.raises(CheckpointError, match=message):
        AtomicLocalBackend().put(b'next', target)
    assert target.read_bytes() == b'whole'
    assert list(tmp_path.iterdir()) == [target]


def test_another_mistake_of_the_system_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(handle: int) -> None:
        raise OSError(5, 'Input/output error')

    monkeypatch.setattr(atomic_backend.os, 'fsync', broken)
    with pytest.raises(OSError, match='Input/output error'):
        AtomicLocalBackend().put(b'next', tmp_path / 'iter_1.pth')


def test_a_checkpoint_is_sealed(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({'a': torch.ones(2)}, file)
    AtomicLocalBackend().put(file.getvalue(), tmp_path / 'iter_1.pth')
    assert check_seal(tmp_path / 'iter_1.pth')
    assert torch.equal(torch.load(tmp_path / 'iter_1.pth', weights_only=True)['a'], torch.ones(2))


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = ['iter_1.pth', '.iter_1.pth', '.hidden', 'iter_1.pth.abcdefgh', '.iter_1.pth.toolongname']
    for name in [*kept, '.iter_2.pth.x1y2z3_4', '.best_mIoU_iter_2.pth.abcdefgh']:
        (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == ['.best_mIoU_iter_2.pth.abcdefgh', '.iter_2.pth.x1y2z3_4']
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / 'new/folder/a.pth') > 0
