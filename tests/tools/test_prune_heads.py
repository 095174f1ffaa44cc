"""The tool from the command line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import prune_heads
import pytest
import torch
from engine_fixtures import shared as shared
from PIL import Image
from pruning_configs import pruning_teacher

from kdplugin import launch
from kdplugin.pruning.plan import PruningPlan
from kdplugin.reports.plain_model import build_plain_model
from kdplugin.weights.reading.io import hash_file, read_checkpoint


def test_it_writes_what_it_says(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, checkpoint = pruning_teacher(shared)
    words = ['--heads', '2', '--neurons', '0.5', '--batches', '2', '--compensate', 'proj', 'w3', '--keep', '1:3']
    assert prune_heads.main([config, checkpoint, str(tmp_path), *words, '--size', '64']) == 0
    said = capsys.readouterr().out
    plan = PruningPlan.read(tmp_path / 'plan.json')
    assert plan.head_counts == (2, 2)
    assert plan.neuron_counts == (42, 42)
    assert 3 in plan.heads[1]
    assert plan.about['sha256'] == hash_file(checkpoint)
    assert plan.about['heads']['scorer'] == 'taylor'
    assert str(plan).splitlines()[0] in said
    report = json.loads((tmp_path / 'report.json').read_text())
    before, after = report['costs']['before'], report['costs']['after']
    assert before['parameters'] - after['parameters'] == 2 * (2 * 4 * 8 * 32 + 2 * 2 * 8 + 43 * (3 * 32 + 4))
    assert after['flops'] < before['flops']
    assert len(report['scores']['heads']) == 2
    assert all(after <= before for before, after in report['errors'].values())
    assert Image.open(tmp_path / 'heads.png').size[0] > 500
    model = build_plain_model(launch.read_config(tmp_path / 'pruned_config.py'))
    content = read_checkpoint(tmp_path / 'pruned.pth')
    model.load_state_dict(content['state_dict'], strict=True)
    assert content['meta']['kdplugin']['pruning']['compensated'] == ['proj', 'w3']
    assert torch.equal(content['state_dict']['bbox_head.gfl_cls.bias'], model.bbox_head.gfl_cls.bias)


def test_magnitude_needs_no_data(shared: Path, tmp_path: Path) -> None:
    config, checkpoint = pruning_teacher(shared)
    words = ['--heads', '2', '--scorer', 'magnitude', '--scope', 'global', '--min-heads', '1', '--size', '0']
    options = ['--cfg-options', 'train_dataloader={}']
    assert prune_heads.main([config, checkpoint, str(tmp_path), *words, *options]) == 0
    plan = PruningPlan.read(tmp_path / 'plan.json')
    assert sum(plan.head_counts) == 4
    assert not plan.prunes_neurons
    assert json.loads((tmp_path / 'report.json').read_text())['costs'] == {}


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'error: Expected a budget of heads or neurons but got none'),
        (['--heads', '5', '--scorer', 'magnitude'], 'error: Expected to keep at most 4 in each block but got 5'),
        (['--heads', '1.5', '--scorer', 'magnitude'], 'error: Expected a share above 0 and at most 1 but got 1.5'),
    ],
)
def test_mistakes(
    words: list[str], message: str, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune_heads.main([*pruning_teacher(shared), str(tmp_path), *words]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_words() -> None:
    assert (prune_heads.amount('8'), prune_heads.amount('0.25')) == (8, 0.25)
    assert prune_heads.keep('3:0,5') == (3, [0, 5])
