"""Pruning a trained detector: what goes to the files equals what the parts give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orion_models as orion
import pytest
import torch
from pruning_configs import pruning_teacher

from kdplugin.errors import ConfigError
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state
from kdplugin.pruning_run.prune import prune_and_report
from kdplugin.weights.reading.io import read_checkpoint


def prune(shared: Path, out: Path, checkpoint: str = '', **settings: Any) -> str:
    config, own = pruning_teacher(shared)
    settings = dict(heads=0.5, scorer='magnitude', neuron_scorer='magnitude', size=0, progress=False) | settings
    return prune_and_report(config, checkpoint or own, out, **settings)


def test_the_checkpoint_is_the_slice_of_the_teacher(shared: Path, tmp_path: Path) -> None:
    text = prune(shared, tmp_path, neurons=20)
    plan = PruningPlan.read(tmp_path / 'plan.json')
    assert (plan.head_counts, plan.neuron_counts) == ((2, 2), (20, 20))
    expected = prune_state(plan, pruning_teacher(shared)[1])
    found = read_checkpoint(tmp_path / 'pruned.pth')['state_dict']
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items() if 'freqs' not in name)
    assert 'heads.png, plan.json, pruned.pth, pruned_config.py, report.json' in text


def test_a_plan_knows_the_names_of_its_file(shared: Path, tmp_path: Path) -> None:
    text = prune(shared, tmp_path / 'out', orion.save_orion(tmp_path))
    plan = PruningPlan.read(tmp_path / 'out' / 'plan.json')
    assert plan.prefix == 'img_backbone.'
    assert '3 tensors of the checkpoint are not built by the config and left out' in text
    assert any(name.startswith('backbone.') for name in read_checkpoint(tmp_path / 'out' / 'pruned.pth')['state_dict'])


def test_the_seed_is_that_of_the_random_heads(shared: Path, tmp_path: Path) -> None:
    plans = []
    for seed in (0, 0, 1):
        prune(shared, tmp_path, scorer='random', seed=seed)
        plans.append(PruningPlan.read(tmp_path / 'plan.json').heads)
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_fits_are_reported(shared: Path, tmp_path: Path) -> None:
    text = prune(shared, tmp_path, neurons=0.5, compensate=['w3'], batches=2)
    errors = json.loads((tmp_path / 'report.json').read_text())['errors']
    assert list(errors) == ['blocks.0.mlp.w3', 'blocks.1.mlp.w3']
    assert all(after < before for before, after in errors.values())
    assert 'blocks.1.mlp.w3' in text


def test_a_share_is_one_of_something(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='Expected a share above 0 and at most 1 but got 0'):
        prune(shared, tmp_path, heads=0.0)
