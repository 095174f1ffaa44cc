"""A damaged or hostile file gives a dict or a CheckpointError, and nothing runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

from checkpoint_fuzz import Watch, case, fuzz, hostile, outcome, sound  # noqa: E402


def check(cases: int, seed: int, folder: Path) -> None:
    results = fuzz(cases, seed, folder)
    assert results['wrong'] == []
    assert results['read'] + results['refused'] == cases
    assert set(results['by_kind']) == {'broken', 'pickle', 'spliced', 'hostile'}
    assert results['by_kind']['hostile'].keys() == {'refused'}
    assert results['read'] > 0
    names = {path.name for path in folder.iterdir()}
    assert names - {*sound(), 'case.pth', 'case.safetensors'} == set()


def test_two_hundred_files(tmp_path: Path) -> None:
    check(200, 1, tmp_path)


@pytest.mark.slow
def test_two_thousand_files(tmp_path: Path) -> None:
    check(2000, 2, tmp_path)


def test_the_watch_sees_a_program_and_a_file(tmp_path: Path) -> None:
    """What the cases must not do is noticed when it is done."""
    watch = Watch()
    watch.on = True
    os.system('true')  # noqa: S605
    (tmp_path / 'a').write_text('')
    eval('1')  # noqa: S307
    watch.on = False
    assert {event.split()[0] for event in watch.seen} == {'os.system', 'open', 'exec'}


def test_cases_are_the_same_each_time_and_sound_files_are_read(tmp_path: Path) -> None:
    files, evil = sound(), hostile(tmp_path / 'executed')
    assert case(5, 0, files, evil) == case(5, 0, files, evil)
    watch = Watch()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        outcome(tmp_path / name, watch)
        assert outcome(tmp_path / name, watch) == ('read', '')
