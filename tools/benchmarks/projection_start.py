#!/usr/bin/env python
"""What a start from the teacher's weights is worth: tools/benchmarks/projection_start.py --seeds 0 1 2.

One student, one recipe, several starts, on the quickstart's digit scenes (configs/projection/). Every run is a process
of its own; finished ones are kept in work_dirs/projection_start/ and not run again, and the results are written after
each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from measuring import in_process, peak_memory, write_json
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from kdplugin import launch, quickstart
from kdplugin.reports.cli import run_tool
from kdplugin.reports.run_log import read_run
from kdplugin.weights.project import project
from kdplugin.weights.reading.io import hash_file
from kdplugin.weights.reading.source import open_source

CONFIGS = Path('configs') / 'projection'
WORK = Path('work_dirs') / 'projection_start'
RESULTS = Path('docs') / 'results' / 'projection_start.json'
EVERY = 10
"""Steps between two measurements of the loss."""
SCENES = 64
"""Training scenes on which the loss is measured, always the same."""
TAIL = 3
"""Measurements that make the loss at the end."""

Curve = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Start:
    """One way to begin: the projection's method ('random' for none) and its choice of layers."""

    method: str
    layers: str = 'uniform'

    @property
    def options(self) -> list[str]:
        hook = 'custom_hooks.0'
        return [] if self.method == 'random' else [f'{hook}.method={self.method}', f'{hook}.layers={self.layers}']

    @property
    def config(self) -> Path:
        return CONFIGS / f'{"random" if self.method == "random" else "projected"}_mit_digits.py'


STARTS = (
    Start('random'),
    Start('truncate'),
    Start('average'),
    Start('svd'),
    Start('svd', 'first'),
    Start('svd', 'last'),
    Start('svd', 'similarity'),
)


def loss_at(curve: Curve, step: int) -> float | None:
    """Return the loss measured at a step, or None.

    Example:
        >>> loss_at([(0, 2.0), (10, 1.5)], 10)
        1.5
    """
    return dict(curve).get(step)


def loss_end(curve: Curve) -> float:
    """Return the mean of the last measurements."""
    return mean(loss for _, loss in curve[-TAIL:])


def steps_to(curve: Curve, loss: float) -> int | None:
    """Return the first measured step with a loss that low, or None.

    Example:
        >>> steps_to([(0, 2.0), (10, 1.5), (20, 1.6)], 1.6), steps_to([(0, 2.0)], 1.0)
        (10, None)
    """
    return next((step for step, measured in curve if measured <= loss), None)


def summary(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs as the documentation's table takes them; each is held against the random start of its seed."""
    random = {record['seed']: loss_end(record['curve']) for record in records if record['method'] == 'random'}
    runs = []
    for record in records:
        curve, seed = record['curve'], record['seed']
        kept = {key: value for key, value in record.items() if key not in ('curve', 'fingerprint')}
        losses = {'loss_0': loss_at(curve, 0), 'loss_100': loss_at(curve, 100), 'loss_end': loss_end(curve)}
        rounded = {key: None if value is None else round(value, 4) for key, value in losses.items()}
        reached = steps_to(curve, random[seed]) if seed in random else None
        runs.append({**kept, **rounded, 'steps_to_random': reached})
    return runs


class LossProbe(Hook):
    """Measures the loss on always the same training scenes, before the first step and at regular steps."""

    priority = 'LOWEST'  # after the projection

    def __init__(self) -> None:
        self.curve: list[tuple[int, float]] = []

    def before_train(self, runner: Runner) -> None:
        settings = runner.cfg.train_dataloader.to_dict()
        settings['dataset']['indices'] = SCENES
        settings['sampler'] = dict(type='DefaultSampler', shuffle=False)
        self._batches = list(runner.build_dataloader(settings))
        self._measure(runner, 0)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        if self.every_n_train_iters(runner, EVERY):
            self._measure(runner, runner.iter + 1)

    @torch.no_grad()
    def _measure(self, runner: Runner, step: int) -> None:
        model = runner.model
        training = model.training
        model.eval()
        batches = [model.data_preprocessor(batch, training=True) for batch in self._batches]
        losses = [float(model.parse_losses(model(**batch, mode='loss'))[0]) for batch in batches]
        model.train(training)
        self.curve.append((step, mean(losses)))


def projection_cost(model: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Project once for the measurement, without records and pictures; the model is not changed."""
    began, before = time.process_time(), peak_memory() >> 20
    options = {key: settings[key] for key in ('method', 'layers', 'head_dim')}
    projection = project(open_source(settings['source']), model, **options)
    return {
        'seconds': round(time.process_time() - began, 2),
        'peak_rss_mb': peak_memory() >> 20,
        'rss_before_mb': before,
        'coverage': round(projection.report.coverage['parameters'], 4),
    }


def measure(start: Start, seed: int, options: Sequence[str], work_dir: str) -> dict[str, Any]:
    """Train one student and return its loss curve, score and costs."""
    words = [*start.options, f'randomness.seed={seed}', 'log_level=WARNING', *options]
    config = launch.read_config(start.config, launch.parse_options(words))
    runner = launch.build_runner(launch.prepare(config, work_dir=work_dir))
    cost: dict[str, Any] = {'seconds': None, 'peak_rss_mb': None}
    if start.method != 'random':
        cost = projection_cost(runner.model, config.custom_hooks[0])
    probe = LossProbe()
    runner.register_hook(probe)
    runner.train()
    score = runner.message_hub.get_scalar('val/mIoU').current()
    return {**asdict(start), 'seed': seed, 'miou': round(float(score), 2), **cost, 'curve': probe.curve}


def train_teacher(config: Path, work_dir: str) -> None:
    """Train the teacher."""
    launch.train(launch.prepare(launch.read_config(config), work_dir=work_dir))


def fingerprint(start: Start, seed: int, options: Sequence[str], inputs: str) -> str:
    """Return what tells a run from one with another config, other data or another teacher."""
    text = launch.read_config(start.config, launch.parse_options([*start.options, *options])).pretty_text
    return hashlib.sha256(f'{text}{seed}{inputs}'.encode()).hexdigest()[:16]


def kept_or_measured(start: Start, seed: int, options: Sequence[str], work: Path, inputs: str) -> dict[str, Any]:
    """Return a run's record from its file if it is of this config, data and teacher, else measure it."""
    folder = work / f'{start.method}_{start.layers}_seed{seed}'
    file, mark = folder / 'record.json', fingerprint(start, seed, options, inputs)
    record = json.loads(file.read_text()) if file.is_file() else {}
    if record.get('fingerprint') != mark:
        record = in_process(measure, start, seed, options, str(folder)) | {'fingerprint': mark}
        write_json(file, record)
    return record


def recipe(records: Sequence[Mapping[str, Any]], teacher: Path) -> str:
    """Return how the runs were made, in sentences for the documentation."""
    config = launch.read_config(STARTS[0].config)
    before = [record['rss_before_mb'] for record in records if 'rss_before_mb' in record]
    memory = f' of which {min(before)} to {max(before)} MB were held before it' if before else ''
    score = read_run(teacher).select('last').metrics['mIoU']
    return (
        f'configs/projection: teacher {score:.2f} mIoU; the student has half its layers and half their width in the '
        f'second stage, and is trained for {config.train_cfg.max_iters} steps of {config.train_dataloader.batch_size} '
        f'scenes on one thread. Backbone and head are projected. Losses are those of the same {SCENES} training scenes '
        f'in every run, measured every {EVERY} steps; the end is the mean of the last {TAIL} measurements; mIoU is '
        'that of the validation scenes after the last step. Steps are counted to the final loss of the random start '
        f'of the same seed. Seconds are CPU seconds of plan and projection; peak RSS is that of the process,{memory}.'
    )


def run_all(seeds: Sequence[int], options: Sequence[str], work: Path, out: Path) -> None:
    """Train the teacher and every start for every seed; write the results after each run."""
    data = quickstart.make_data()['sha256']
    source = Path(launch.read_config(CONFIGS / 'projected_mit_digits.py').custom_hooks[0].source)
    if not source.is_file():
        in_process(train_teacher, CONFIGS / f'{source.parent.name}.py', str(source.parent))
    inputs = data + hash_file(source)
    records: list[dict[str, Any]] = []
    for start in STARTS:
        for seed in seeds:
            began = time.perf_counter()
            records.append(kept_or_measured(start, seed, options, work, inputs))
            write_json(out, {'runs': summary(records), 'recipe': recipe(records, source.parent)})
            print(f'{time.perf_counter() - began:6.1f} s  {json.dumps(summary(records)[-1])}', flush=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description='One student from several starts, several seeds.')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--work', type=Path, default=WORK, help='folder of the runs')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every student')
    arguments = parser.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = '1'

    def body() -> int:
        run_all(arguments.seeds, arguments.cfg_options, arguments.work, arguments.out)
        print(f'wrote {arguments.out}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
