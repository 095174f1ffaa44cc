from __future__ import annotations

import os
from pathlib import Path

import migrate_mmrazor
import pytest
import torch
from engine_fixtures import build, segmentor
from mmrazor_recipes import CWD, mapping, recipe

pytestmark = pytest.mark.usefixtures('without_layout')


def config(folder: Path, *, foreign: bool = False) -> str:
    losses = dict(loss_cwd=CWD, **(dict(loss_o=dict(type='OFDLoss')) if foreign else {}))
    recipe(losses, {name: mapping() for name in losses}).dump(folder / 'razor.py')
    return str(folder / 'razor.py')


def test_a_config_is_written_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / 'kd.py', tmp_path / 'report.txt'
    assert migrate_mmrazor.main([config(tmp_path), str(out), '--report', str(report)]) == 0
    printed = capsys.readouterr().out
    assert "type='kdplugin.CWDLoss'" in out.read_text()
    assert 'tools/verify_config.py' in printed
    assert report.read_text().strip() in printed
    assert 'loaded strictly' in report.read_text()


def test_leftovers_stop_it_unless_they_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [config(tmp_path, foreign=True), str(tmp_path / 'kd.py')]
    assert migrate_mmrazor.main(arguments) == 1
    assert '1 without a counterpart: nothing written.' in capsys.readouterr().out
    assert not (tmp_path / 'kd.py').exists()
    assert migrate_mmrazor.main([*arguments, '--allow-leftovers']) == 0
    assert 'OFDLoss' not in (tmp_path / 'kd.py').read_text()


def test_a_checkpoint_is_proved_against_the_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = build(segmentor()).state_dict()
    torch.save(dict(state_dict={f'architecture.{key}': value for key, value in weights.items()}), tmp_path / 'a.pth')
    arguments = [str(tmp_path / 'a.pth'), str(tmp_path / 'b.safetensors'), '--config', config(tmp_path)]
    assert migrate_mmrazor.main(arguments) == 0
    assert f'{len(weights)} of {len(weights)} tensors' in ' '.join(capsys.readouterr().out.split())


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrate_mmrazor.main([str(tmp_path / 'no.py'), str(tmp_path / 'kd.py')]) == 1
    assert capsys.readouterr().err.count(os.linesep) == 1
