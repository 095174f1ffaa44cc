"""Contract 8: several processes train one student, on CPUs through gloo; and the command lines of the scripts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentor, shared
from engine_runs import run_config

from kdplugin.weights.reading.io import read_checkpoint

__all__ = ['shared']

ROOT = Path(__file__).parents[2]


def free_port() -> str:
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return str(one.getsockname()[1])


def call(script: str, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    settings = dict(PATH=path, OMP_NUM_THREADS='1', PORT=free_port(), CUDA_VISIBLE_DEVICES='', **environment)
    command = [str(ROOT / 'tools' / script), *map(str, words)]
    started = subprocess.Popen(
        command, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        said = started.communicate(timeout=900)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)  # the processes that torchrun started, too
        raise
    return subprocess.CompletedProcess(command, started.returncode, *said)


def train(shared: Path, folder: Path, *words: str) -> list[dict[str, Any]]:
    """Run two processes on SyncBN models with adapters; return what each of them noted at its end."""
    model = distilled(shared, feature_and_logit_pairs(), segmentor(norm='SyncBN'))
    model['teacher']['model'] = segmentor(16, norm='SyncBN', dropout=0.5)
    config = run_config(shared, folder, model, iters=4, save_every=2, hooks=(dict(type='mmengine.NoteRank'),))
    config.randomness.diff_rank_seed = True
    config.custom_imports = dict(imports=['engine_runs'], allow_failed_imports=False)
    config.default_hooks.checkpoint.max_keep_ckpts = -1
    folder.mkdir()
    config.dump(folder / 'config.py')
    done = call('dist_train.sh', folder / 'config.py', '2', *words, PYTHONPATH=str(ROOT / 'tests'))
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f'rank{rank}.json').read_text()) for rank in range(2)]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('dist') / 'whole'


@pytest.fixture(scope='module')
def both(shared: Path, folder: Path) -> list[dict[str, Any]]:
    return train(shared, folder)


def test_two_processes_train_one_student(both: list[dict[str, Any]], folder: Path) -> None:
    first, second = both
    assert first['world_size'] == 2
    assert first['wrapper'] == 'CPUDistributedDataParallel'
    assert not first['find_unused_parameters']
    assert not first['sync_batchnorms']
    assert first['parameters'] == second['parameters']
    assert first['adapters'] == second['adapters']
    assert first['adapters'] != first['adapters_at_start']
    assert first['losses'][0] != second['losses'][0]
    for step in (*first['losses'], *second['losses']):
        assert step['loss_kd_feature'] > 0
        assert step['loss_kd_logits'] > 0
    checkpoint = read_checkpoint(folder / 'iter_4.pth')
    build(segmentor()).load_state_dict(checkpoint['state_dict'], strict=True)
    states = checkpoint['rng_states']['ranks']
    assert len(states) == 2
    assert not torch.equal(states[0]['torch'], states[1]['torch'])


def test_two_processes_resume_as_if_never_stopped(
    both: list[dict[str, Any]], shared: Path, folder: Path, tmp_path: Path
) -> None:
    resumed = train(shared, tmp_path / 'cut', '--resume', str(folder / 'iter_2.pth'))
    for one, whole in zip(resumed, both, strict=True):
        assert one['losses'] == whole['losses'][2:]
        assert one['parameters'] == whole['parameters']
        assert one['adapters'] == whole['adapters']


@pytest.fixture
def echo(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``python`` and ``srun`` print their arguments, one to a line."""
    for name in ('python', 'srun'):
        program = tmp_path / name
        program.write_text('#!/bin/sh\necho "PYTHONPATH=$PYTHONPATH"\nprintf "%s\\n" "$@"\n')
        program.chmod(0o755)
    return dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}', PYTHONPATH='mine')


def words_of(script: str, *words: str, environment: dict[str, str]) -> list[str]:
    command = [str(ROOT / 'tools' / script), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_dist_train_takes_mmdets_arguments_and_variables(echo: dict[str, str]) -> None:
    environment = dict(echo, NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234')
    said = words_of('dist_train.sh', 'my config.py', '8', '--cfg-options', 'a=[1, 2]', environment=environment)
    assert said == [
        f'PYTHONPATH={ROOT}:mine', '-m', 'kdplugin.elastic', '--nnodes=2', '--node_rank=1',
        '--master_addr=10.0.0.1', '--master_port=1234', '--nproc_per_node=8', f'{ROOT}/tools/train.py',
        'my config.py', '--launcher', 'pytorch', '--cfg-options', 'a=[1, 2]',
    ]  # fmt: skip


def test_dist_test_has_mmdets_defaults(echo: dict[str, str]) -> None:
    said = words_of('dist_test.sh', 'c.py', 'best.pth', '4', '--work-dir', 'w', environment=echo)
    assert said[3:] == [
        '--nnodes=1', '--node_rank=0', '--master_addr=127.0.0.1', '--master_port=29500', '--nproc_per_node=4',
        f'{ROOT}/tools/test.py', 'c.py', 'best.pth', '--launcher', 'pytorch', '--work-dir', 'w',
    ]  # fmt: skip


def test_slurm_train_takes_mmdets_arguments_and_variables(echo: dict[str, str]) -> None:
    environment = dict(echo, GPUS='16', CPUS_PER_TASK='3', SRUN_ARGS='--quotatype=spot --time 9')
    said = words_of('slurm_train.sh', 'part', 'job', 'c.py', 'w', '--amp', environment=environment)
    assert said[1:] == [
        '-p', 'part', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8', '--cpus-per-task=3',
        '--kill-on-bad-exit=1', '--signal=USR1@120', '--quotatype=spot', '--time', '9', 'python', '-u',
        f'{ROOT}/tools/train.py', 'c.py', '--work-dir=w', '--launcher=slurm', '--amp',
    ]  # fmt: skip


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_too_few_arguments_are_answered_with_the_usage(script: str) -> None:
    done = call(script, 'c.py')
    assert done.returncode == 2
    assert 'usage: ' in done.stderr
    assert 'CONFIG' in done.stderr
