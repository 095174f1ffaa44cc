#!/usr/bin/env python
"""What distillation keeps of a pruned detector's accuracy: tools/benchmarks/orion_digits.py --seeds 0 1 2.

One tiny teacher on digit scenes, its pruned student at once, and after the same short training without a teacher, with
it, and from random weights (configs/orion/). Every run is a process of its own; finished ones are kept in
work_dirs/orion_digits/ and not run again, unfinished ones go on from their last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import in_process, write_json

from kdplugin import launch
from kdplugin.datasets.digit_drawing import SceneSettings
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state
from kdplugin.reports.cli import run_tool
from kdplugin.weights.reading.io import hash_file, read_checkpoint, state_dict_of, write_checkpoint

CONFIGS = Path('configs') / 'orion'
TEACHER = CONFIGS / 'teacher_eva-tiny_digits.py'
NO_KD, KD = (CONFIGS / f'student_{kind}_eva-tiny_digits.py' for kind in ('nokd', 'kd'))
WORK = Path('work_dirs') / 'orion_digits'
RESULTS = Path('docs') / 'results' / 'orion_digits.json'
METRIC = 'coco/bbox_mAP'
KINDS = {'no_kd': (NO_KD, True), 'kd': (KD, True), 'random': (NO_KD, False)}
"""Students by what the results call them: config, and whether they begin with the teacher's weights."""


def draw(config: Path) -> str:
    """Draw the scenes that a config asks for, or find them in place; return their hash."""
    settings = launch.read_config(config)
    arguments = settings.digit_scenes.to_dict()
    counts = {name: arguments.pop(name) for name in ('train', 'val', 'size', 'seed')}
    report = make_digit_scenes(settings.data_root, settings=SceneSettings(**arguments), **counts)
    return str(report.meta['sha256'])


def train(config: Path, seed: int, projected: bool, work_dir: str) -> float:
    """Train a config, from its last checkpoint if there is one, and return the mAP after the last step."""
    settings = launch.read_config(config, {'randomness.seed': seed})
    settings.val_dataloader = settings.val_evaluator = settings.val_cfg = None  # measured once, below
    if not projected:
        settings.custom_hooks = []
    last = Path(work_dir) / f'iter_{settings.train_cfg.max_iters}.pth'
    if not last.is_file():
        launch.train(launch.prepare(settings, work_dir=work_dir, resume='auto'))
    return measure(config, str(last), work_dir)


def measure(config: Path, checkpoint: str, work_dir: str) -> float:
    """Test a checkpoint once and return its mAP."""
    settings = launch.prepare(launch.read_config(config), work_dir=work_dir)
    return float(launch.test(settings, checkpoint)[METRIC])


def write_pruned(teacher: Path, plan: Path, out: Path) -> None:
    """Write the pruned student as it is before any training."""
    state = state_dict_of(read_checkpoint(teacher), str(teacher))
    write_checkpoint({'state_dict': prune_state(PruningPlan.read(plan), state)}, out)


def kept_or_measured(folder: Path, mark: str, call: Any, *arguments: Any) -> float:
    """Return a run's mAP from its record if that is of the same inputs, else measure it in a process of its own."""
    file = folder / 'record.json'
    record = json.loads(file.read_text()) if file.is_file() else {}
    if record.get('fingerprint') != mark:
        began = time.perf_counter()
        record = {'map': in_process(call, *arguments), 'fingerprint': mark}
        record['seconds'] = round(time.perf_counter() - began, 1)
        write_json(file, record)
    return float(record['map'])


def fingerprint(config: Path, *inputs: Any) -> str:
    """Return what tells a run from one with another config, other data, another teacher or plan."""
    text = launch.read_config(config).pretty_text
    return hashlib.sha256(f'{text}{inputs}'.encode()).hexdigest()[:16]


def summary(scores: Mapping[str, Sequence[float]], **more: Any) -> dict[str, Any]:
    """Return the results as the documentation has them: mAP by seed, in percent.

    Example:
        >>> summary({'teacher': [0.51234], 'kd': [0.5, 0.49]})
        {'teacher': [51.23], 'kd': [50.0, 49.0]}
    """
    return {name: [round(100 * value, 2) for value in values] for name, values in scores.items()} | more


def recipe(seeds: Sequence[int]) -> str:
    """Return how the numbers were made, in sentences for the documentation."""
    teacher, student = launch.read_config(TEACHER), launch.read_config(NO_KD)
    return (
        f'configs/orion: mAP in percent (COCO, IoU 0.50 to 0.95) on {teacher.digit_scenes.val} validation scenes of '
        f'{teacher.digit_scenes.size} pixels. The teacher is trained for {teacher.train_cfg.max_iters} steps of '
        f'{teacher.train_dataloader.batch_size} scenes; one plan keeps a quarter of its heads and of its neurons. '
        f'Students with seeds {list(seeds)} are trained for {student.train_cfg.max_iters} steps, the backbone alone; '
        "`random` begins with a random backbone between the teacher's neck and head."
    )


def run_all(seeds: Sequence[int], plan: Path, work: Path, out: Path) -> None:
    """Train the teacher and every student for every seed; write the results after each run."""
    data = draw(TEACHER)
    teacher = work / 'teacher' / f'iter_{launch.read_config(TEACHER).train_cfg.max_iters}.pth'
    scores: dict[str, list[float]] = {}
    mark = fingerprint(TEACHER, data)
    scores['teacher'] = [kept_or_measured(work / 'teacher', mark, train, TEACHER, 0, True, str(work / 'teacher'))]
    if not plan.is_file():
        raise SystemExit(
            f'Make the plan first: tools/prune_heads.py ... {teacher} (see docs/orion.md), then run again.'
        )
    inputs = (data, hash_file(teacher), hash_file(plan))
    pruned = work / 'pruned' / 'pruned.pth'
    pruned.parent.mkdir(parents=True, exist_ok=True)
    write_pruned(teacher, plan, pruned)
    mark = fingerprint(NO_KD, inputs)
    scores['pruned'] = [kept_or_measured(work / 'pruned', mark, measure, NO_KD, str(pruned), str(work / 'pruned'))]
    for number, seed in enumerate(seeds, 1):
        for kind, (config, projected) in KINDS.items():
            folder = work / f'{kind}_seed{seed}'
            mark = fingerprint(config, projected, seed, inputs)
            found = kept_or_measured(folder, mark, train, config, seed, projected, str(folder))
            scores.setdefault(kind, []).append(found)
            write_json(out, summary(scores, recipe=recipe(seeds[:number])))
            print(f'{kind} seed {seed}: {scores[kind][-1]:.4f}', flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='A tiny ORION: teacher, pruned student, and what trains it.')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--plan', type=Path, default=WORK / 'quarter' / 'plan.json', help='of tools/prune_heads.py')
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--work', type=Path, default=WORK, help='folder of the runs')
    arguments = parser.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = '1'

    def body() -> int:
        run_all(arguments.seeds, arguments.plan, arguments.work, arguments.out)
        print(f'wrote {arguments.out}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
