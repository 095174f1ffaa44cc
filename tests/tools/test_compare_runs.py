from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import compare_runs
import pytest
from seed_runs import seed_runs
from synthetic_runs import make_run

ROOT = Path(__file__).parents[2]


def test_it_prints_the_table_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(make_run(tmp_path / 'a', [40.0, 39.0])), str(make_run(tmp_path / 'b', [41.0, 44.0], kd=True))]
    teacher = str(make_run(tmp_path / 'c', [50.0]))
    out = tmp_path / 'out'
    arguments = [*folders, '--teacher', teacher, '--out', str(out), '--select', 'last', '--shape', '8', '16']
    assert compare_runs.main(arguments) == 0
    text = capsys.readouterr().out
    assert 'the last validation of each run by mIoU (iteration: baseline at 200, KD at 200, teacher at 100)' in text
    assert f'wrote {out / "report.png"}' in text
    report = json.loads((out / 'report.json').read_text())
    assert (report['metrics'][0]['baseline'], report['metrics'][0]['kd']) == (39.0, 44.0)
    assert report['cost_setting']['input'] == [8, 16]
    assert sorted(path.name for path in out.iterdir()) == ['losses.png', 'metric.png', 'report.json', 'report.png']


def test_a_users_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    run = make_run(tmp_path / 'a', [40.0])
    command = [sys.executable, ROOT / 'tools' / 'compare_runs.py', run, tmp_path / 'nowhere', '--out', tmp_path / 'out']
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if 'OneDL' not in line]
    assert len(errors) == 1
    assert errors[0].startswith('error: Expected a work dir but')
    assert 'Traceback' not in result.stdout
    assert not (tmp_path / 'out').exists()


def test_an_unwritable_output_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(make_run(tmp_path / 'a', [40.0]))
    (tmp_path / 'file').write_text('')
    assert compare_runs.main([run, run, '--out', str(tmp_path / 'file')]) == 1
    assert 'error: Expected to read or write' in capsys.readouterr().err


def test_several_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = (list(map(str, side)) for side in seed_runs(tmp_path))
    out = tmp_path / 'out'
    words = ['--baseline', *ours[:2], '--kd', *theirs[1:], '--out', str(out), '--shape', '8', '16']
    assert compare_runs.main(words) == 0
    text = capsys.readouterr().out
    assert 'mIoU: KD gains +8.75 on average over 2 seeds (standard deviation 2.39)' in text
    assert f'wrote {out / "report.html"}' in text
    assert compare_runs.main(['--baseline', *ours, '--kd', *theirs[1:], '--out', str(out)]) == 1
    assert 'error: Expected a KD run for each baseline run of the same seed but' in capsys.readouterr().err


def test_one_run_of_each_may_be_named_too(tmp_path: Path) -> None:
    ours, theirs = seed_runs(tmp_path)
    out = tmp_path / 'out'
    assert compare_runs.main(['--baseline', str(ours[0]), '--kd', str(theirs[2]), '--out', str(out)]) == 0
    assert json.loads((out / 'report.json').read_text())['metrics'][0]['delta'] == pytest.approx(7.06)


@pytest.mark.parametrize(
    'words', [[], ['a'], ['a', 'b', 'c'], ['a', 'b', '--kd', 'c'], ['--kd', 'c'], ['--baseline', 'c']]
)
def test_a_command_line_that_says_neither_is_refused(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        compare_runs.main([*words, '--out', str(tmp_path / 'out')])
    assert 'give BASELINE KD, or --baseline DIR ... and --kd DIR ...' in capsys.readouterr().err
