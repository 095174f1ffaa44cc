"""One process of two fails: the other ends soon, it is said why, and what was saved goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import distilled, feature_and_logit_pairs, segmentor, shared
from engine_runs import run_config
from test_dist_train import ROOT, call

__all__ = ['shared']

LIMIT = 60.0
"""Seconds within which all processes have to end, on a busy machine; docs/clusters.md says what is usual."""


def run(shared: Path, folder: Path, *words: str, how: str | None = None, workers: int = 0) -> tuple[int, str]:
    """Train 6 iterations on two processes; return the exit code and what was said."""
    model = distilled(shared, feature_and_logit_pairs(), segmentor())
    hooks: list[dict[str, Any]] = [dict(type='mmengine.NoteRank')]
    if how:
        hooks.insert(0, dict(type='mmengine.FailAt', how=how))
    config = run_config(shared, folder, model, iters=6, save_every=2, hooks=tuple(hooks))
    config.custom_imports = dict(imports=['engine_runs'], allow_failed_imports=False)
    config.train_dataloader.num_workers = workers
    folder.mkdir(exist_ok=True)
    config.dump(folder / 'config.py')
    done = call('dist_train.sh', folder / 'config.py', '2', *words, PYTHONPATH=str(ROOT / 'tests'))
    return done.returncode, done.stdout + done.stderr


def seconds_since_failure(folder: Path) -> float:
    return time.time() - float((folder / 'failed').read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ('how', 'code', 'words'),
    [
        ('raise', 1, ['Traceback', 'RuntimeError: a broken image', 'rank      : 1']),
        ('kill', 137, ['Signal 9 (SIGKILL) received by PID', 'rank      : 1']),
        ('worker', 1, ['is killed by signal: Killed', 'rank      : 1']),
        ('nan', 1, ['Expected finite distances but got NaN or infinity at']),
    ],
    ids=['an error', 'a killed process', 'a killed data worker', 'NaN'],
)
def test_the_others_end_and_it_is_said_why(shared: Path, tmp_path: Path, how: str, code: int, words: list[str]) -> None:
    folder = tmp_path / 'run'
    ended, said = run(shared, folder, how=how, workers=int(how == 'worker'))
    seconds = seconds_since_failure(folder)
    assert ended == code, said[-3000:]
    assert [word for word in words if word not in said] == [], said[-3000:]
    assert seconds < LIMIT
    print(f'{how}: {seconds:.1f} s')
    assert (folder / 'iter_2.pth').is_file()


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_a_restart_goes_on(shared: Path, tmp_path: Path) -> None:
    """Rank 1 is asked before iteration 2, counted from 0; both know after iteration 3 and have saved it."""
    folder = tmp_path / 'run'
    ended, said = run(shared, folder, how='stop')
    assert ended == 75, said[-3000:]
    assert (folder / 'stopped').read_text() == f'A signal to another process after iteration 4: {folder}/iter_4.pth\n'
    ended, said = run(shared, folder, '--resume')
    assert ended == 0, said[-3000:]
    whole = tmp_path / 'whole'
    assert run(shared, whole)[0] == 0
    for rank in range(2):
        resumed, expected = (json.loads((one / f'rank{rank}.json').read_text()) for one in (folder, whole))
        assert resumed['losses'] == expected['losses'][4:]
        assert resumed['parameters'] == expected['parameters']
