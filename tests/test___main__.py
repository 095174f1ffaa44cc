from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdplugin import package_files
from kdplugin.__main__ import main


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what the process would have become."""
    calls: list[Any] = []
    monkeypatch.setattr('os.execvpe', lambda *call: calls.append(call))
    return calls


def test_a_tool_takes_the_place_of_the_process_with_its_arguments(become: list[Any]) -> None:
    main(['train', 'kdplugin::quickstart/kd_digits.py', '--resume'])
    [(program, command, _)] = become
    script = str(package_files.TOOLS / 'train.py')
    assert (program, command) == (
        sys.executable,
        [sys.executable, script, 'kdplugin::quickstart/kd_digits.py', '--resume'],
    )


def test_a_shell_script_finds_this_python_first(become: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', '/somewhere')
    main(['dist_train', 'my_kd.py', '2'])
    [(program, command, environment)] = become
    assert (program, command) == ('bash', ['bash', str(package_files.TOOLS / 'dist_train.sh'), 'my_kd.py', '2'])
    assert environment['PATH'] == f'{Path(sys.executable).parent}{os.pathsep}/somewhere'


@pytest.mark.parametrize('arguments', [[], ['--help'], ['-h']])
def test_the_tools_are_listed(arguments: list[str], become: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert 'usage: python -m kdplugin TOOL' in said
    assert ' verify_config' in said.splitlines()[-1]
    assert become == []


def test_an_unknown_tool_is_an_error(become: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['tain']) == 1
    assert "error: Expected the name of a tool but got 'tain'. Did you mean 'train'" in capsys.readouterr().err
    assert become == []


def test_it_runs_in_an_empty_folder_and_gives_the_exit_code_of_the_tool(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'kdplugin', 'rename_weights', 'weights.pth', 'renamed.pth'],
        cwd=tmp_path, env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert 'rename_weights.py: error: give --remove-prefix, --replace-prefix, ' in done.stderr
