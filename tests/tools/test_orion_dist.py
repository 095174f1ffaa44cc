"""Two processes train a tiny OrionStudent, and resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orion_models as orion
import pytest
import torch
from engine_fixtures import shared
from orion_runs import kd_config
from test_dist_train import ROOT, call

from kdplugin.weights.reading.io import read_checkpoint

__all__ = ['shared']
pytestmark = pytest.mark.slow


def train(shared: Path, folder: Path, teacher: str, *words: str) -> list[dict[str, Any]]:
    folder.mkdir()
    config = kd_config(shared, folder, teacher, epochs=2)
    config.custom_hooks.append(dict(type='mmengine.NoteRank'))
    config.custom_imports = dict(imports=['engine_runs'], allow_failed_imports=False)
    config.dump(folder / 'config.py')
    done = call('dist_train.sh', folder / 'config.py', '2', *words, PYTHONPATH=str(ROOT / 'tests'))
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / 'run' / f'rank{rank}.json').read_text()) for rank in range(2)]


def test_two_processes_train_the_backbone_alone_and_resume(shared: Path, tmp_path: Path) -> None:
    teacher = orion.save_teacher(tmp_path)
    first, second = train(shared, tmp_path / 'whole', teacher)
    assert first['world_size'] == 2
    assert first['parameters'] == second['parameters']
    assert first['losses'][0] != second['losses'][0]
    assert all(step[f'loss_kd_{name}'] > 0 for step in first['losses'] for name in ('features', 'attention', 'outputs'))
    saved = read_checkpoint(tmp_path / 'whole/run/epoch_2.pth')['state_dict']
    before = torch.load(teacher, weights_only=True)['state_dict']
    assert all(torch.equal(value, before[name]) for name, value in saved.items() if not name.startswith('backbone.'))
    resumed = train(shared, tmp_path / 'cut', teacher, '--resume', str(tmp_path / 'whole/run/epoch_1.pth'))
    for one, whole in zip(resumed, (first, second), strict=True):
        assert one['losses'] == whole['losses'][len(whole['losses']) // 2 :]
        assert one['parameters'] == whole['parameters']
