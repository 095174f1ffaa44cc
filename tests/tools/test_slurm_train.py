"""tools/slurm_train.sh goes on after a stop, and after nothing else; Slurm's programs are stubs that note words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTE = '#!/bin/sh\nprintf "%s " "$(basename "$0")" "$@" >>"$NOTES"\necho >>"$NOTES"\n'
SRUN = f"""{NOTE}
codes=$(cat "$CODES")
echo "${{codes#* }}" >"$CODES"
[ -z "$LEAVE" ] || touch "$LEAVE"
exit "${{codes%% *}}"
"""


class Slurm:
    """A folder of stubs, and what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in dict(srun=SRUN, sbatch=NOTE, scontrol=NOTE).items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def train(self, codes: str, *words: str, **environment: str) -> tuple[int, list[str], str]:
        """Run the script while srun ends with one code after the other; return its code, the calls and what it said."""
        (self.folder / 'codes').write_text(codes + '\n')
        (self.folder / 'notes').write_text('')
        settings = dict(
            PATH=f"{self.folder}:{os.environ['PATH']}", NOTES=str(self.folder / "notes"),
            CODES=str(self.folder / "codes"),
            **dict(dict(LEAVE=''), **environment),
        )  # fmt: skip
        done = subprocess.run(
            [str(ROOT / 'tools/slurm_train.sh'), 'part', 'job', 'c.py', str(self.folder / 'run'), *words],
            env=settings, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode, (self.folder / 'notes').read_text().splitlines(), done.stderr


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    (tmp_path / 'run').mkdir()
    return Slurm(tmp_path)


def test_a_stopped_run_goes_on_until_it_is_done(slurm: Slurm) -> None:
    code, calls, said = slurm.train('75 75 0', '--amp')
    assert code == 0
    assert [call.endswith('--launcher=slurm --amp --resume ') for call in calls] == [False, True, True]
    assert [call.startswith('srun -p part ') for call in calls] == [True] * 3
    assert said == 'stopped and saved: going on\n' * 2


@pytest.mark.parametrize('code', [1, 2, 137, 143])
def test_a_failed_run_does_not_go_on(slurm: Slurm, code: int) -> None:
    assert slurm.train(f'{code} 0')[:1] == (code,)
    assert len((slurm.folder / 'notes').read_text().splitlines()) == 1


def test_a_task_that_slurm_killed_while_the_run_stopped_does_not_hide_it(slurm: Slurm) -> None:
    """The first of several tasks ends with 75, and Slurm kills the slower ones: 137 is the highest code."""
    code, calls, _ = slurm.train('137', LEAVE=str(slurm.folder / 'run/stopped'), ENVIRONMENT='BATCH', SLURM_JOB_ID='9')
    assert code == 75
    assert calls[1:] == ['scontrol requeue 9 ']


def test_a_mark_of_an_earlier_stop_is_not_taken_for_a_new_one(slurm: Slurm) -> None:
    (slurm.folder / 'run/stopped').touch()
    assert slurm.train('1')[0] == 1


def test_restarts_are_bounded(slurm: Slurm) -> None:
    code, calls, _ = slurm.train('75 75 75 75', RESTARTS='2')
    assert code == 75
    assert len(calls) == 3


def test_a_batch_job_is_requeued_and_resumes(slurm: Slurm) -> None:
    job = dict(ENVIRONMENT='BATCH', SLURM_JOB_ID='42')
    code, calls, said = slurm.train('75', **job)
    assert code == 75
    assert calls[1:] == ['scontrol requeue 42 ']
    assert said == 'stopped and saved: requeueing job 42\n'
    assert '--resume' not in calls[0]
    code, calls, _ = slurm.train('0', '--seed', SLURM_RESTART_COUNT='1', **job)
    assert code == 0
    assert calls[0].endswith('--seed --resume ')


def test_a_batch_job_is_submitted_with_the_same_words(slurm: Slurm) -> None:
    code, calls, _ = slurm.train(
        '0', '--cfg-options', 'a=[1, 2]', BATCH='1', GPUS='16', GRACE='300', SBATCH_ARGS='--time=4:00:00 --qos=low'
    )
    assert code == 0
    (call,) = calls
    assert call.startswith(
        'sbatch -p part --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8 --cpus-per-task=5 --requeue '
        '--signal=USR1@300 --open-mode=append --time=4:00:00 --qos=low --wrap=env BATCH=0 '
    )
    assert call.endswith(rf'/tools/slurm_train.sh part job c.py {slurm.folder}/run --cfg-options a=\[1\,\ 2\]  ')
