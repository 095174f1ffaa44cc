"""What is on the disk at every moment: a new checkpoint is complete before the old one goes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from engine_fixtures import segmentor
from engine_runs import run_config, start

from kdplugin.errors import CheckpointError
from kdplugin.hooks.atomic_backend import AtomicLocalBackend
from kdplugin.hooks.safe_checkpoint_hook import latest_complete_checkpoint


def test_the_old_checkpoint_goes_after_the_new_one_is_complete(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, list[str]]] = []
    put, remove = AtomicLocalBackend.put, AtomicLocalBackend.remove

    def note(action: str) -> None:
        seen.append((action, sorted(path.name for path in tmp_path.glob('*.pth'))))

    def watched_put(self: AtomicLocalBackend, obj: bytes, filepath: str) -> None:
        note('before')
        put(self, obj, filepath)
        note('written')

    def watched_remove(self: AtomicLocalBackend, filepath: str) -> None:
        remove(self, filepath)
        note('removed')

    monkeypatch.setattr(AtomicLocalBackend, 'put', watched_put)
    monkeypatch.setattr(AtomicLocalBackend, 'remove', watched_remove)
    start(run_config(shared, tmp_path, segmentor(), iters=2, save_every=1))
    assert seen == [
        ('before', []),
        ('written', ['iter_1.pth']),
        ('before', ['iter_1.pth']),
        ('written', ['iter_1.pth', 'iter_2.pth']),
        ('removed', ['iter_2.pth']),
    ]


def test_the_old_best_checkpoint_goes_after_the_new_one_is_complete(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rule under which each validation is the best one; the disk fills up at the second best file."""
    from mmengine.hooks import CheckpointHook

    monkeypatch.setitem(CheckpointHook.rule_map, 'greater', lambda new, best: True)
    put = AtomicLocalBackend.put

    def full_disk(self: AtomicLocalBackend, obj: bytes, filepath: str) -> None:
        if 'best_mIoU_iter_4' in str(filepath):
            raise OSError(28, 'No space left on device', str(filepath))
        put(self, obj, filepath)

    monkeypatch.setattr(AtomicLocalBackend, 'put', full_disk)
    with pytest.raises(OSError, match='No space left on device'):
        start(run_config(shared, tmp_path, segmentor(), iters=4, save_every=2, validate_every=2))
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['best_mIoU_iter_2.pth', 'iter_4.pth']
    monkeypatch.setattr(AtomicLocalBackend, 'put', put)
    again = run_config(shared, tmp_path, segmentor(), iters=4, save_every=2, validate_every=2)
    assert set(start(again, resume='auto').validations) == {4}
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['best_mIoU_iter_4.pth', 'iter_4.pth']


def test_a_bad_disk_is_noticed_and_the_previous_file_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'a.pth').write_bytes(b'old')
    monkeypatch.setattr('kdplugin.hooks.atomic_backend.hash_file', lambda path: 'other')
    with pytest.raises(CheckpointError, match=r'to read back what was written to .*a\.pth but got other bytes'):
        AtomicLocalBackend().put(b'new', tmp_path / 'a.pth')
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b'old']


def saved(folder: Path, *names: str) -> None:
    for name in names:
        torch.save({'state_dict': {'a': torch.zeros(100)}, 'optimizer': {}}, folder / name)


def test_the_newest_complete_checkpoint_is_found_by_number(tmp_path: Path) -> None:
    saved(tmp_path, 'iter_9.pth', 'iter_10.pth', 'best_mIoU_iter_12.pth', 'iter_x.pth', '.iter_11.pth.tmp')
    assert latest_complete_checkpoint(tmp_path) == tmp_path / 'iter_10.pth'


def test_truncated_and_weights_only_files_are_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr('kdplugin.hooks.find_checkpoint.print_log', lambda message, **_: said.append(message))
    saved(tmp_path, 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth')
    whole = (tmp_path / 'epoch_3.pth').read_bytes()
    (tmp_path / 'epoch_3.pth').write_bytes(whole[: len(whole) // 2])
    torch.save({'state_dict': {'a': torch.zeros(1)}}, tmp_path / 'epoch_2.pth')
    (tmp_path / 'epoch_4.pth').touch()
    assert latest_complete_checkpoint(tmp_path) == tmp_path / 'epoch_1.pth'
    expected = (
        'epoch_4.pth is damaged',
        'epoch_3.pth is damaged',
        'an optimizer in .*epoch_2.pth but it holds weights',
    )
    assert 'epoch_1.pth has no checksum' in said.pop()
    for message, pattern in zip(said, expected, strict=True):
        assert re.search(f'Not resumed from: Expected .*{pattern}', message)


def test_nothing_complete_is_none(tmp_path: Path) -> None:
    assert latest_complete_checkpoint(tmp_path) is None
    assert latest_complete_checkpoint(tmp_path / 'not-there') is None
    (tmp_path / 'iter_1.pth').write_bytes(b'PK')
    assert latest_complete_checkpoint(tmp_path) is None
