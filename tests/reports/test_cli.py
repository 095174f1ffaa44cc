from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdplugin.errors import CheckpointError, DataError
from kdplugin.reports.cli import run_tool


@pytest.mark.parametrize('code', [0, 3])
def test_the_exit_code_is_the_bodys(code: int) -> None:
    assert run_tool(lambda: code) == code


@pytest.mark.parametrize('kind', [DataError, CheckpointError])
def test_a_users_mistake_is_one_line_on_stderr(kind: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise kind('Expected a but got b. Do c.')

    assert run_tool(body) == 1
    captured = capsys.readouterr()
    assert captured.err == 'error: Expected a but got b. Do c.\n'
    assert captured.out == ''


def test_a_file_that_the_system_refuses_is_a_sentence_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'file').write_text('')

    def body() -> int:
        (tmp_path / 'file' / 'below').mkdir()
        return 0

    assert run_tool(body) == 1
    assert 'file/below but got "Not a directory". Check the path' in capsys.readouterr().err


def test_control_c_needs_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise KeyboardInterrupt

    assert run_tool(body) == 130
    assert capsys.readouterr().err == 'interrupted\n'


def test_a_reader_that_leaves_needs_no_traceback() -> None:
    body = "from kdplugin.reports.cli import run_tool; import sys; sys.exit(run_tool(lambda: print('x' * 10**7) or 0))"
    with subprocess.Popen([sys.executable, '-c', body], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
        assert tool.stdout is not None
        assert tool.stderr is not None
        assert tool.stdout.read(1) == b'x'
        tool.stdout.close()
        assert tool.wait(60) == 141
        assert tool.stderr.read() == b''


@pytest.mark.parametrize('error', [ZeroDivisionError('bug'), OSError('no file in this one')])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    def body() -> int:
        raise error

    with pytest.raises(type(error), match=str(error)):
        run_tool(body)
