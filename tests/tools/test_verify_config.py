from __future__ import annotations

from pathlib import Path

import pytest
import verify_config
from engine_fixtures import distilled, feature_and_logit_pairs, shared
from engine_runs import run_config

__all__ = ['shared']

pytestmark = pytest.mark.usefixtures('without_layout')


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> str:
    model = distilled(shared, feature_and_logit_pairs())
    run_config(shared, tmp_path / 'work', model, validate_every=2).dump(tmp_path / 'kd.py')
    return str(tmp_path / 'kd.py')


def test_a_good_config_gives_0_and_leaves_no_work_dir(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_config.main([config]) == 0
    out = ' '.join(capsys.readouterr().out.split())
    assert out.endswith(f'{config}: no errors, no warnings. Ready to train.')
    assert 'loss_kd_logits' in out
    assert 'Errors' not in out
    assert not (Path(config).parent / 'work').exists()


def test_options_win_and_every_problem_is_in_one_report(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ['model.pairs.logits.tap=decode_hed', 'model.pairs.feature.weight=-1', 'model.teacher.checkpoint=no.pth']
    assert verify_config.main([config, '--cfg-options', *options]) == 1
    out = ' '.join(capsys.readouterr().out.split())
    for part in (
        'Expected a module path of the student but got',
        'Expected a module path of the teacher but got',
        "Expected a finite weight >= 0 in pair 'feature' but got -1",
        'Expected a checkpoint file but no.pth does not exist',
        f'{config}: 4 errors, no warnings. Correct the errors before training.',
    ):
        assert part in out


def test_a_config_that_does_not_parse_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'bad.py').write_text('model = dict(\n')
    assert verify_config.main([str(tmp_path / 'bad.py')]) == 1
    captured = capsys.readouterr()
    assert captured.out == ''
    assert captured.err.startswith('error: Expected Python in')
    assert captured.err.count('\n') == 1
