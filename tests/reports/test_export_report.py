from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from synthetic_runs import STUDENT, distilled, recipe, save_checkpoint

from kdplugin.errors import CheckpointError
from kdplugin.reports.export_report import export_parts, strict_load
from kdplugin.reports.tables import render
from kdplugin.weights.export import ExportReport, export_student

VALUES = 3 * 9 * 4 + 4 + 4 * 4 + 4


def exported(tmp_path: Path) -> ExportReport:
    save_checkpoint(tmp_path / 'iter_100.pth')
    return export_student(tmp_path / 'iter_100.pth', tmp_path / 'student.pth')


def test_the_text_counts_and_names_what_was_left_behind(tmp_path: Path) -> None:
    text = render(*export_parts(exported(tmp_path)))
    lines = [line.split() for line in text.splitlines()]
    assert ['tensors', '4', '4'] in lines
    assert ['values', 'in', 'them', str(VALUES), str(VALUES)] in lines
    assert 'left behind: message_hub, optimizer, param_schedulers' in text
    assert 'EMA' not in text


def test_averaged_weights_are_named() -> None:
    text = render(*export_parts(ExportReport('a', 'b', 1, 1, 4, 10, 5, (), True)))
    assert 'averaged weights (EMA)' in text
    assert 'nothing to leave behind' in text


@pytest.mark.parametrize('config', [recipe(), distilled()])
def test_the_plain_model_of_either_config_takes_every_tensor(tmp_path: Path, config: dict) -> None:
    proof = strict_load(Config(config), exported(tmp_path).target)
    assert proof.startswith('strict load into TinySegmentor of ')
    assert proof.endswith(f': 4 of 4 tensors, {VALUES} of {VALUES} values matched')


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'to fit the model in all 4 tensors but 1 fit: 3 of another shape'):
        strict_load(Config(recipe(model=dict(STUDENT, width=5))), exported(tmp_path).target)
    torch.save({'conv.weight': torch.ones(1)}, tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='missing'):
        strict_load(Config(recipe()), tmp_path / 'other.pth')
