"""The file backend for checkpoints writes whole files, reads them back, and is found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.fileio import get_file_backend

from kdplugin.errors import CheckpointError
from kdplugin.hooks import atomic_backend
from kdplugin.hooks.atomic_backend import AtomicLocalBackend


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
    with pytest.raises(OSError, match='No space left'):
        AtomicLocalBackend().put(b'next', target)
    assert target.read_bytes() == b'whole'
    assert list(tmp_path.iterdir()) == [target]
