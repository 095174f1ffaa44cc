from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import export_student
import pytest
import torch
from mmengine.config import Config
from synthetic_runs import distilled, save_checkpoint

ROOT = Path(__file__).parents[2]


def test_it_writes_the_student_and_proves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = save_checkpoint(tmp_path / 'iter_100.pth', kdplugin={'adapters': {'low.weight': torch.ones(3)}})
    Config(distilled()).dump(tmp_path / 'kd.py')
    arguments = [str(tmp_path / 'iter_100.pth'), str(tmp_path / 'student.pth'), '--config', str(tmp_path / 'kd.py')]
    assert export_student.main(arguments) == 0
    out = capsys.readouterr().out
    assert 'left behind: kdplugin, message_hub, optimizer, param_schedulers' in out
    assert '4 of 4 tensors, 132 of 132 values matched' in out
    exported = torch.load(tmp_path / 'student.pth', weights_only=True)['state_dict']
    assert all(torch.equal(exported[key], value) for key, value in weights.items())


def test_a_users_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    torch.save({'state_dict': {'teacher.conv.weight': torch.ones(1)}}, tmp_path / 'a.pth')
    command = [sys.executable, ROOT / 'tools' / 'export_student.py', tmp_path / 'a.pth', tmp_path / 'b.pth']
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if 'OneDL' not in line]
    assert len(errors) == 1
    assert errors[0].startswith('error: Expected the weights of a student in')
    assert not (tmp_path / 'b.pth').exists()


def test_a_pickle_that_runs_code_needs_to_be_trusted_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / 'exploded',))

    torch.save({'state_dict': {'a': torch.ones(1)}, 'extra': Bomb()}, tmp_path / 'a.pth')
    arguments = [str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')]
    assert export_student.main(arguments) == 1
    assert 'trust_checkpoint=True' in capsys.readouterr().err
    assert not (tmp_path / 'exploded').exists()
    assert export_student.main([*arguments, '--trust-checkpoint']) == 0
    assert (tmp_path / 'exploded').exists()


def test_a_missing_config_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path / 'a.pth')
    assert export_student.main([str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), '--config', 'nowhere.py']) == 1
    assert 'nowhere.py does not exist' in capsys.readouterr().err
