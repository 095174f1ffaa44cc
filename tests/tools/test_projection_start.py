"""The benchmark of starts: its arithmetic, its configs, and one short run of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.reports.measured.projection_start import START_COLUMNS, projection_start_table
from kdplugin.weights.project import project
from kdplugin.weights.reading.source import open_source

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs' / 'projection'
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))

import projection_start  # noqa: E402
from projection_start import STARTS, Start, loss_at, loss_end, measure, steps_to, summary  # noqa: E402

FALLING = [(0, 2.0), (10, 1.0), (20, 0.6), (30, 0.5), (40, 0.4)]
FASTER = [(0, 1.0), (10, 0.51), (20, 0.49), (30, 0.3), (40, 0.2)]


def build(name: str) -> nn.Module:
    init_default_scope('mmseg')
    return MMSEG_MODELS.build(Config.fromfile(CONFIGS / name).model)


def record(method: str, seed: int, curve: list[tuple[int, float]]) -> dict[str, Any]:
    cost = {'seconds': None, 'peak_rss_mb': None, 'fingerprint': 'x'}
    return {'method': method, 'layers': 'uniform', 'seed': seed, 'miou': 50.0, **cost, 'curve': curve}


def test_losses_of_a_curve() -> None:
    assert (loss_at(FALLING, 10), loss_at(FALLING, 15)) == (1.0, None)
    assert loss_end(FALLING) == pytest.approx(0.5)
    assert loss_end([(0, 2.0)]) == 2.0


@pytest.mark.parametrize(('loss', 'step'), [(0.5, 30), (0.55, 30), (3.0, 0), (0.39, None)])
def test_steps_to_a_loss(loss: float, step: int | None) -> None:
    assert steps_to(FALLING, loss) == step


def test_runs_are_held_against_the_random_start_of_their_seed() -> None:
    lower = [(step, loss / 2) for step, loss in FALLING]
    runs = summary(
        [
            record('random', 0, FALLING),
            record('random', 1, lower),
            record('svd', 0, FASTER),
            record('svd', 1, FALLING),
            record('svd', 2, FASTER),
        ]
    )
    assert [run['steps_to_random'] for run in runs] == [30, 30, 20, None, None]
    assert (runs[2]['loss_0'], runs[2]['loss_100'], runs[2]['loss_end']) == (1.0, None, 0.33)
    assert not {'curve', 'fingerprint'} & runs[0].keys()


def test_the_documentations_table_takes_the_runs() -> None:
    runs = summary([record('random', 0, FALLING), record('svd', 0, FASTER)])
    assert all(run.keys() >= START_COLUMNS.keys() for run in runs)
    assert (
        projection_start_table({'runs': runs, 'recipe': 'R.'}).splitlines()[3].startswith('| svd | uniform | 1.000 |')
    )


def test_starts_are_those_of_the_question() -> None:
    methods = {start.method for start in STARTS if start.layers == 'uniform'}
    assert methods == {'random', 'truncate', 'average', 'svd'}
    assert {start.layers for start in STARTS if start.method == 'svd'} == {'uniform', 'first', 'last', 'similarity'}
    assert STARTS[0].method == 'random'  # the others are held against it


def test_configs_differ_in_the_start_alone() -> None:
    random, projected = (
        Config.fromfile(CONFIGS / f'{name}_mit_digits.py').to_dict() for name in ('random', 'projected')
    )
    (hook,) = projected.pop('custom_hooks')
    assert projected == random
    assert (hook['type'], hook['target']) == ('kdplugin.WeightProjectionHook', '')
    teacher = Config.fromfile(CONFIGS / 'teacher_mit_digits.py')
    assert hook['source'] == f'work_dirs/teacher_mit_digits/iter_{teacher.train_cfg.max_iters}.pth'
    assert teacher.train_cfg.max_iters % teacher.default_hooks.checkpoint.interval == 0
    assert teacher.param_scheduler[0].total_steps == teacher.train_cfg.max_iters


@pytest.mark.parametrize(
    ('start', 'layers'),
    [(one, {'uniform': [0, 2, 5, 7], 'first': [0, 1, 2, 3], 'last': [4, 5, 6, 7]}) for one in STARTS[1:]],
)
def test_the_whole_student_comes_from_the_teacher(start: Start, layers: dict[str, list[int]]) -> None:
    source, student = build('teacher_mit_digits.py').state_dict(), build('random_mit_digits.py')
    settings = Config.fromfile(CONFIGS / 'projected_mit_digits.py').custom_hooks[0]
    options = {'method': start.method, 'layers': start.layers, 'head_dim': settings.head_dim}
    projection = project(open_source(source), student, **options)
    assert projection.report.coverage['parameters'] == 1
    taken = [
        int(entry.sources[0].split('.')[4])
        for entry in projection.report.plan.entries
        if entry.target.startswith('backbone.layers.1.1.') and entry.target.endswith('norm1.weight')
    ]
    if start.layers == 'similarity':
        assert len(taken) == 4
        assert taken[0] == 0
        assert taken[-1] == 7
    else:
        assert taken == layers[start.layers]


@pytest.mark.slow
def test_a_projected_run_measures_what_the_table_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(projection_start, 'CONFIGS', CONFIGS)
    monkeypatch.setattr(projection_start, 'SCENES', 16)
    make_digit_scenes(tmp_path / 'scenes', train=20, val=10, size=96, progress=False)
    teacher = build('teacher_mit_digits.py')
    torch.save({'state_dict': teacher.state_dict(), 'meta': {}}, tmp_path / 'teacher.pth')
    data = [f'{split}_dataloader.dataset.data_root={tmp_path / "scenes"}' for split in ('train', 'val', 'test')]
    options = [*data, 'train_cfg.max_iters=10', 'train_cfg.val_interval=10']
    random = measure(STARTS[0], 0, options, str(tmp_path / 'random'))
    svd = measure(STARTS[3], 0, [*options, f'custom_hooks.0.source={tmp_path / "teacher.pth"}'], str(tmp_path / 'svd'))
    assert [step for step, _ in random['curve']] == [step for step, _ in svd['curve']] == [0, 10]
    assert svd['curve'] != random['curve']
    assert svd['coverage'] == 1
    assert svd['peak_rss_mb'] >= svd['rss_before_mb'] > 100
    assert (tmp_path / 'svd' / 'weight_projection' / 'plan.json').is_file()
    assert random['seconds'] is None
