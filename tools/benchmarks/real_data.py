#!/usr/bin/env python
"""What distillation gains on real data over several seeds: tools/benchmarks/real_data.py --seeds 0 1 2.

Blood cells (detection) and aerial images of Dubai (segmentation), configs/real_data/. Teacher, baselines and distilled
students are trained one process after the other, each on one thread; finished runs are kept, an interrupted one goes on
from its last checkpoint, and the results are written after each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from measuring import write_json
from real_data_files import prepare

from kdplugin import launch
from kdplugin.errors import ConfigError
from kdplugin.hooks.safe_checkpoint_hook import latest_complete_checkpoint
from kdplugin.reports.cli import run_tool
from kdplugin.reports.run_log import logged_seconds, read_run
from kdplugin.weights.reading.io import hash_file

CONFIGS = Path('configs') / 'real_data'
WORK = Path('work_dirs') / 'real_data'
RESULTS = Path('docs') / 'results' / 'real_data.json'
TRAIN_TOOL = Path('tools') / 'train.py'
METRICS = {'bccd': ('coco/bbox_mAP', 100.0), 'dubai': ('mIoU', 1.0)}
"""The metric of each data set as it is logged, and its factor to percent."""
ROLES = ('baseline', 'kd', 'kd_bf16')
"""In the last one the teacher runs in bfloat16."""


@dataclass(frozen=True)
class Run:
    """One training: its data, its role (teacher, or one of ``ROLES``) and its seed."""

    data: str
    role: str
    seed: int = 0

    @property
    def config(self) -> Path:
        return CONFIGS / f'{self.role}_{self.data}.py'

    @property
    def work_dir(self) -> Path:
        name = f'{self.role}_{self.data}'
        return WORK / (name if self.role == 'teacher' else f'{name}_seed{self.seed}')

    @property
    def options(self) -> list[str]:
        return [f'randomness.seed={self.seed}']


def plan(data: str, seeds: Sequence[int], roles: Sequence[str] = ROLES[:2]) -> list[Run]:
    """Return the runs of a data set, seed by seed, the teacher first."""
    return [Run(data, 'teacher'), *(Run(data, role, seed) for seed in seeds for role in roles)]


def fingerprint(run: Run, inputs: str) -> str:
    """Return what tells a run from one with another config, other data or another teacher."""
    config = launch.read_config(run.config, launch.parse_options(run.options))
    digest = hashlib.sha256(f'{json.dumps(config.to_dict(), sort_keys=True)}{inputs}'.encode())
    if run.role.startswith('kd'):
        digest.update(hash_file(Path(config.model.teacher.checkpoint)).encode())
    return digest.hexdigest()[:16]


def measure(run: Run, inputs: str) -> dict[str, Any]:
    """Return a run's record from its file if it is of this config, data and teacher, else train it."""
    file, mark = run.work_dir / 'record.json', fingerprint(run, inputs)
    record: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if record.get('fingerprint') != mark:
        shutil.rmtree(run.work_dir, ignore_errors=True)
        record = {'fingerprint': mark}
        write_json(file, record)
    if 'score' not in record:
        train(run)
        metric, factor = METRICS[run.data]
        score = read_run(run.work_dir).select('last').metrics[metric]
        record |= {'score': round(score * factor, 2), 'minutes': round(logged_seconds(run.work_dir) / 60, 1)}
        write_json(file, record)
    return record


def train(run: Run) -> None:
    """Train a run to its end in a process of its own, from its last checkpoint if it has one.

    Raises:
        ConfigError: the process failed.
    """
    command = [sys.executable, str(TRAIN_TOOL), str(run.config), '--work-dir', str(run.work_dir)]
    if latest_complete_checkpoint(run.work_dir) is not None:
        command.append('--resume')
    with (run.work_dir / 'output.txt').open('a') as output:
        done = subprocess.run(  # noqa: S603
            [*command, '--cfg-options', *run.options], check=False, stdout=output, stderr=output
        )
    if done.returncode != 0:
        raise ConfigError(
            f'Expected {run.config} to train but it stopped with exit code {done.returncode}. Read {output.name}.'
        )


def summary(data: str, records: Mapping[Run, Mapping[str, Any]], command: str) -> dict[str, Any]:
    """Return one row: scores by role in the order of seeds, and gain and spread of the seeds that have both."""
    scores = {run: record['score'] for run, record in records.items()}
    seeds = sorted({run.seed for run in scores if run.role == 'kd'})
    baseline = [scores[Run(data, 'baseline', seed)] for seed in seeds]
    kd = [scores[Run(data, 'kd', seed)] for seed in seeds]
    gains = [after - before for before, after in zip(baseline, kd, strict=True)]
    half = {run.seed: score for run, score in scores.items() if run.role == 'kd_bf16'}
    changes = [score - scores[Run(data, 'kd', seed)] for seed, score in half.items() if seed in seeds]
    row = {
        'data': data,
        'metric': METRICS[data][0],
        'teacher': scores[Run(data, 'teacher')],
        'seeds': seeds,
        'baseline': baseline,
        'kd': kd,
        'mean_gain': round(mean(gains), 2) if gains else None,
        'spread': round(stdev(gains), 2) if len(gains) > 1 else None,
        'minutes': round(sum(record['minutes'] for record in records.values()), 1),
        'config': f'{CONFIGS}/{{teacher,baseline,kd}}_{data}.py',
        'command': command,
    }
    if changes:
        row |= {'kd_bf16': list(half.values()), 'bf16_mean_change': round(mean(changes), 2)}
    return row


def run_all(
    names: Sequence[str], seeds: Sequence[int], source: Path, out: Path, roles: Sequence[str] = ROLES[:2]
) -> None:
    """Measure the data sets named; rows of others stay in the file."""
    words = '--data', *names, '--seeds', *map(str, seeds), *(('--roles', *roles) if roles != ROLES[:2] else ())
    command = ' '.join(('python tools/benchmarks/real_data.py', *words))
    inputs = {name: prepare(name, source, WORK / 'data' / name) for name in names}
    records: dict[str, dict[Run, dict[str, Any]]] = {name: {} for name in names}
    runs = [run for name in names for run in plan(name, seeds, roles)]
    for run in sorted(runs, key=lambda run: run.seed):
        records[run.data][run] = measure(run, inputs[run.data])
        rows = {row['data']: row for row in json.loads(out.read_text())['runs']} if out.is_file() else {}
        rows[run.data] = summary(run.data, records[run.data], command)
        write_json(out, {'runs': list(rows.values()), 'rule': 'metric after the last step, in percent'})
        print(f'{run.role} {run.data} seed {run.seed}: {json.dumps(records[run.data][run])}', flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='Baseline and KD on real data, several seeds.')
    parser.add_argument('--data', nargs='+', choices=METRICS, default=list(METRICS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--roles', nargs='+', choices=ROLES, default=ROLES[:2])
    parser.add_argument(
        '--source',
        type=Path,
        default=Path(os.environ.get('REAL_DATA', '../shared/data')),
        help='folder with bccd, dubai and weights; also by REAL_DATA',
    )
    parser.add_argument('--out', type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    os.environ.update(OMP_NUM_THREADS='1', REAL_DATA=str(arguments.source))

    def body() -> int:
        run_all(arguments.data, arguments.seeds, arguments.source, arguments.out, tuple(arguments.roles))
        print(f'wrote {arguments.out}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
