"""The whole test: it passes as it is, and fails where a check or a fault says so."""

from __future__ import annotations

import json
from pathlib import Path

import production_test as tool
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_embedded_pipeline_passes_and_its_faults_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    code = tool.main(['--work-dir', str(tmp_path), '--json', str(tmp_path / 'out.json')])
    said = capsys.readouterr().out
    assert code == 0, said
    assert 'Passed.' in said
    content = json.loads((tmp_path / 'out.json').read_text())
    assert len(content['checks']) == 7
    assert len(content['faults']) == 4
    assert all(check['passed'] for check in content['checks'])
    assert all(fault['caught'] for fault in content['faults'])
    assert Image.open(content['grid']).size[0] > 500


def test_a_wrong_number_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr('kdplugin.production.production_test.prepare_teacher', lambda settings: 'nowhere')
    assert tool.main(['--work-dir', str(tmp_path), '--num-epochs', '0']) == 1
    assert capsys.readouterr().err == (
        'error: Expected epochs of at least 1 but got 0. Leave it out for that of the config.\n'
    )


def test_a_teacher_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert tool.main(['--work-dir', str(tmp_path), '--teacher', './nowhere']) == 1
    assert capsys.readouterr().err.startswith(
        "error: Expected the folder of a Wan pipeline, or its id, but got './nowhere'"
    )
