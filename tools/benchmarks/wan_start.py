#!/usr/bin/env python
"""What projected weights are worth to an image student of a video teacher: tools/benchmarks/wan_start.py --seeds 0 1 2.

The tiny pair of configs/wan/wan-lite_tiny.py, one recipe, two starts. The loss is that of held-out prompts, on points
of the teacher's own paths from noise that are the same in every run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from measuring import write_json
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kdplugin import launch
from kdplugin.distill.diffusion.diffusion_distillation import DiffusionDistillation
from kdplugin.distill.diffusion.held_out import velocity_loss
from kdplugin.distill.distiller import distillation_of
from kdplugin.production.measures import Examination, constant_error, examine, mark
from kdplugin.production.setup import Settings, prepare_teacher, run_config
from kdplugin.reports.cli import run_tool

RESULTS = Path('docs') / 'results' / 'wan_start.json'
STEPS = (0, 100, 500)
RECIPE = (
    'configs/wan/wan-lite_tiny.py: a teacher of two experts, 4 blocks of width 128, to a student of 2 blocks of width '
    '96; 500 steps of 8 prompts, on one thread. The loss is the mean squared difference to the velocities of the '
    'teacher on 64 points of its own paths to the 16 held-out prompts; the error that of the final latents, '
    '||student - teacher|| / ||teacher||, after 20 Euler steps from the same noise.'
)


class Curve(Hook):
    """Measures the held-out loss before some steps."""

    priority = 'LOWEST'  # after the projection

    def __init__(self, examination: Examination) -> None:
        self.examination = examination
        self.losses: dict[int, float] = {}

    def before_train(self, runner: Runner) -> None:
        self._measure(runner, 0)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._measure(runner, runner.iter + 1)

    def _measure(self, runner: Runner, step: int) -> None:
        if step in STEPS:
            self.losses[step] = round(velocity_loss(runner.model, self.examination.questions), 4)


def measure(settings: Settings, teacher: str, projected: bool) -> dict[str, Any]:
    """Return what one run measured."""
    name = f'{"projected" if projected else "random"}_{settings.seed}'
    config = run_config(settings, name, teacher, projected=projected, full=True)
    config.experiment_name = f'wan_start_{name}'
    runner = launch.build_runner(launch.prepare(config, work_dir=config.work_dir))
    examination = examine(runner.model)
    curve = Curve(examination)
    runner.register_hook(curve)
    runner.train()
    schedule = cast(DiffusionDistillation, distillation_of(runner.model)).flow.schedule
    return dict(
        start='projected' if projected else 'random', seed=settings.seed,
        **{f'loss_{step}': loss for step, loss in curve.losses.items()},
        error=round(mark(runner.model, examination, schedule).error, 4),
        constant_loss=round(examination.constant, 4), constant_error=round(constant_error(examination), 4),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(description='Measure random and projected starts of the tiny image student.')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / 'wan_start')
    parser.add_argument('--out', type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)

    def body() -> int:
        teacher = prepare_teacher(Settings(arguments.work_dir))
        runs = []
        for seed in arguments.seeds:
            for projected in (False, True):
                runs.append(measure(Settings(arguments.work_dir, seed=seed), teacher, projected))
                print(runs[-1], flush=True)
                write_json(arguments.out, dict(recipe=RECIPE, runs=runs))
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
