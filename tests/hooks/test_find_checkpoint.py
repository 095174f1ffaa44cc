"""The newest whole checkpoint is found, whatever lies beside it."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from kdplugin.hooks import find_checkpoint
from kdplugin.hooks.atomic_backend import AtomicLocalBackend
from kdplugin.hooks.find_checkpoint import candidates, latest_complete_checkpoint, progress_of

CONTENT = {'state_dict': {'a': torch.arange(100.0)}, 'optimizer': {}}


def saved(path: Path, content: Any = CONTENT, sealed: bool = True) -> Path:
    file = io.BytesIO()
    torch.save(content, file)
    if sealed:
        AtomicLocalBackend().put(file.getvalue(), path)
    else:
        path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(find_checkpoint, 'print_log', lambda message, **_: messages.append(message))
    return messages


@pytest.mark.parametrize('kind', ['truncated', 'flipped'])
def test_damage_at_any_place_is_named_and_the_file_before_is_taken(tmp_path: Path, said: list[str], kind: str) -> None:
    before = saved(tmp_path / 'iter_2.pth')
    last = saved(tmp_path / 'iter_4.pth')
    whole = last.read_bytes()
    draw = random.Random(1)  # noqa: S311
    for _ in range(20):
        place = draw.randrange(len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :]
        last.write_bytes(whole[:place] if kind == 'truncated' else flipped)
        assert latest_complete_checkpoint(tmp_path) == before
    assert len(said) == 20
    assert all('Not resumed from: Expected ' in message and 'iter_4.pth is damaged' in message for message in said)
    last.write_bytes(whole)
    assert latest_complete_checkpoint(tmp_path) == last
    assert len(said) == 20


def test_a_file_without_a_checksum_is_taken_with_a_note(tmp_path: Path, said: list[str]) -> None:
    path = saved(tmp_path / 'epoch_1.pth', sealed=False)
    assert latest_complete_checkpoint(tmp_path) == path
    (note,) = said
    assert 'epoch_1.pth has no checksum: another tool or an older version wrote it. It reads whole' in note


def test_an_empty_pointer_points_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run killed while mmengine writes ``last_checkpoint``; the parent of the working directory has another run."""
    saved(tmp_path / 'iter_9.pth')
    work_dir = tmp_path / 'here/run'
    work_dir.mkdir(parents=True)
    (work_dir / 'last_checkpoint').touch()
    monkeypatch.chdir(tmp_path / 'here')
    assert latest_complete_checkpoint(work_dir) is None
    (work_dir / 'last_checkpoint').write_text(str(tmp_path / 'iter_9.pth'))
    assert latest_complete_checkpoint(work_dir) == tmp_path / 'iter_9.pth'


def test_other_folders_are_looked_at_too(tmp_path: Path) -> None:
    for name in ('run/iter_1.pth', 'big/run/iter_2.pth'):
        saved(tmp_path / name)
    assert latest_complete_checkpoint(tmp_path / 'run') == tmp_path / 'run/iter_1.pth'
    assert latest_complete_checkpoint(tmp_path / 'run', [tmp_path / 'big/run']) == tmp_path / 'big/run/iter_2.pth'


def test_checkpoints_are_ordered_by_what_they_have_seen(tmp_path: Path) -> None:
    names = ['epoch_4.pth', 'epoch_3_batch_120.pth', 'epoch_3_batch_7.pth', 'epoch_3.pth']
    for name in [*names, 'best_mIoU_epoch_9.pth', 'epoch_x.pth']:
        (tmp_path / name).touch()
    assert [path.name for path in candidates(tmp_path)] == names


@pytest.mark.parametrize(
    ('name', 'progress'),
    [('weights-30.pth', (30, 0)), ('epoch_0_batch_5.pth', (0, 5)), ('batch_5.pth', (5, 0)), ('a5b.pth', None)],
)
def test_progress_of(name: str, progress: tuple[int, int] | None) -> None:
    assert progress_of(Path(name)) == progress
