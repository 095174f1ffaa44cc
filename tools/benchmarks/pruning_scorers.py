#!/usr/bin/env python
"""Which importance wins: mAP straight after pruning heads, by scorer, share and seed.

pruning_scorers.py configs/orion/teacher_eva-tiny_digits.py work_dirs/orion_digits/teacher/iter_600.pth --compensate

Seeds draw the calibration batches, and the heads of the scorer 'random'. Equal plans are tested once.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measuring import write_json
from mmengine.runner import Runner
from torch import nn

from kdplugin import launch
from kdplugin.pruning.budgets import Budget, choose
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.compensation import collect, compensate
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.planning import SCORERS, scorer_of
from kdplugin.pruning.surgery import prune_state
from kdplugin.pruning_run.subject import Subject, calibration_of, open_subject, pruned_backbone
from kdplugin.reports.cli import run_tool
from kdplugin.reports.measured.pruning_scorers import save_scorers

RESULTS = Path('docs') / 'results' / 'pruning_scorers.json'
PICTURE = Path('docs') / 'images' / 'pruning_scorers.png'
SHARES = (0.25, 0.5, 0.75)
"""Of the heads of each block that go."""


@dataclass
class Tester:
    """The config's test loop on a model whose backbone changes; remembers what it tested.

    Args:
        subject: the trained model.
        runner: of its config.
        known: mAP by plan and whether it was compensated.
    """

    subject: Subject
    runner: Runner
    known: dict[Any, float] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: Subject, work_dir: str) -> Tester:
        """Return a tester with a Runner of the subject's config."""
        config = copy.deepcopy(subject.config)
        config.update(train_dataloader=None, train_cfg=None, optim_wrapper=None, param_scheduler=None)
        config.update(val_dataloader=None, val_cfg=None, val_evaluator=None, log_level='WARNING')
        return cls(subject, launch.build_runner(launch.prepare(config, work_dir=work_dir)))

    def score(self, backbone: nn.Module) -> float:
        """Return the mAP of the model with another backbone."""
        model, place = self.subject.model, self.subject.inner.rstrip('.')
        whole = model.get_submodule(place)
        model.set_submodule(place, backbone)
        try:
            self.runner.model = model
            metrics = self.runner.test()
        finally:
            model.set_submodule(place, whole)
        return float(next(value for name, value in metrics.items() if name.endswith('mAP')))

    def score_plan(self, plan: PruningPlan, seed: int | None = None, calibration: Calibration | None = None) -> float:
        """Return the mAP of a plan's slices; with ``proj`` fitted on the batches of a seed if there are any."""
        key = (plan.heads, seed)
        if key not in self.known:
            backbone = pruned_backbone(self.subject, plan)
            if calibration is not None:
                inner = plan.replaced(prefix=self.subject.inner)
                state = prune_state(inner, self.subject.model)
                made = compensate(inner, state, collect(calibration, inner), parts=('proj',)).state
                cut = len(self.subject.inner)
                own = {name[cut:]: value for name, value in made.items() if name.startswith(self.subject.inner)}
                backbone.load_state_dict(own)
            self.known[key] = self.score(backbone)
        return self.known[key]


def plan_of(subject: Subject, kept: tuple[tuple[int, ...], ...], calibration: Calibration) -> PruningPlan:
    """Return the plan that keeps these heads and all neurons."""
    sizes = calibration.blocks.sizes
    whole = PruningPlan.whole(sizes.depth, sizes.num_heads, sizes.hidden, sizes.head_dim, subject.inner)
    return whole.replaced(heads=kept)


def run(subject: Subject, tester: Tester, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every scorer, share and seed; write the results after each row."""
    heads = calibration_of(subject, 0).blocks.sizes.num_heads
    teacher = tester.score(subject.backbone)
    content: dict[str, Any] = {'teacher': teacher, 'heads': heads, 'rows': [], 'how': how(arguments, heads)}
    for seed in arguments.seeds:
        calibration = calibration_of(subject, arguments.batches, arguments.batch_size, seed, progress=False)
        for name in arguments.scorers:
            scores = scorer_of(name, seed)(calibration, 'heads')
            for share in SHARES:
                began = time.perf_counter()
                plan = plan_of(subject, choose(scores, Budget(max(1, round(heads * (1 - share))))), calibration)
                row: dict[str, Any] = {'scorer': name, 'pruned': share, 'seed': seed}
                row['sliced'] = tester.score_plan(plan)
                row['compensated'] = tester.score_plan(plan, seed, calibration) if arguments.compensate else None
                row['heads'] = [list(kept) for kept in plan.heads]
                content['rows'].append(row)
                write_json(arguments.out, content)
                told = {key: row[key] for key in ('scorer', 'pruned', 'seed', 'sliced', 'compensated')}
                print(f'{time.perf_counter() - began:5.1f} s  {told}', flush=True)
    return content


def how(arguments: argparse.Namespace, heads: int) -> str:
    """Return how the numbers were made, for the documentation."""
    return (
        f'`{arguments.config}`, {heads} heads in each block, the same number pruned in every block, nothing trained '
        f'afterwards; scored and fitted on {arguments.batches} batches of {arguments.batch_size} training images; '
        f'{len(arguments.seeds)} seeds draw these images and the random heads.'
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(description='mAP straight after pruning heads, by scorer.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--scorers', nargs='+', choices=list(SCORERS), default=list(SCORERS))
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--batches', type=int, default=16)
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--compensate', action='store_true', help='measure with proj fitted as well')
    parser.add_argument('--out', type=Path, default=RESULTS)
    parser.add_argument('--picture', type=Path, default=PICTURE)
    parser.add_argument('--work-dir', default='work_dirs/pruning_scorers')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE')
    arguments = parser.parse_args(argv)

    def body() -> int:
        subject = open_subject(arguments.config, arguments.checkpoint, launch.parse_options(arguments.cfg_options))
        content = run(subject, Tester.of(subject, arguments.work_dir), arguments)
        save_scorers(content, arguments.picture)
        print(f'teacher {content["teacher"]:.3f} mAP; wrote {arguments.out} and {arguments.picture}')
        return 0

    return run_tool(body)


if __name__ == '__main__':
    sys.exit(main())
