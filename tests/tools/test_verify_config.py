from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import verify_config
from engine_fixtures import distilled, feature_and_logit_pairs, shared
from engine_runs import run_config

__all__ = ['shared']

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('without_layout')


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> str:
    model = distilled(shared, feature_and_logit_pairs())
    whole = run_config(shared, tmp_path / 'work', model, validate_every=2)
    whole.param_scheduler[0].end = 4
    whole.dump(tmp_path / 'kd.py')
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


def test_json_has_path_expected_found_and_cure(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ['--static', '--json', '--cfg-options', 'model.student.backbone.dept=18', 'train_dataloader.batch_size=0']
    assert verify_config.main([config, *options]) == 1
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (said['mode'], said['exit'], said['errors'], said['not_checked']) == ('static', 1, 2, [])
    errors = {one['path']: one for one in said['findings'] if one['level'] == 'error'}
    assert list(errors) == ['model.student.backbone.dept', 'train_dataloader.batch_size']
    first = errors['model.student.backbone.dept']
    assert first['check'] == 'types'
    assert first['found'] == "'dept'"
    assert first['cure'].startswith("Did you mean 'depth'")
    assert first['expected'].startswith('keys [')


def test_a_config_that_does_not_parse_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'bad.py').write_text('model = dict(\n')
    assert verify_config.main([str(tmp_path / 'bad.py'), '--json']) == 1
    (finding,) = json.loads(capsys.readouterr().out)['findings']
    assert (finding['level'], finding['check'], finding['cure']) == ('error', 'syntax', 'Correct the line.')


@pytest.mark.parametrize('arguments', [['gone.py'], ['{config}', '--cfg-options', 'seed'], ['{config}', '--grep']])
def test_what_cannot_be_checked_gives_2(arguments: list[str], config: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = verify_config.main([word.format(config=config) for word in arguments])
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert 'Traceback' not in capsys.readouterr().err


def test_a_check_that_breaks_gives_2(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError('a fault of ours')

    monkeypatch.setattr('kdplugin.preflight.static.check_amp', fail)
    assert verify_config.main([config, '--static']) == 2
    out = ' '.join(capsys.readouterr().out.split())
    assert 'not checked: amp, because of RuntimeError: a fault of ours.' in out
    assert out.endswith('Could not check amp.')


def test_layers_are_listed(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_config.main([config, '--list-layers', 'teacher', '--grep', r'conv_seg$', '--json']) == 0
    said = json.loads(capsys.readouterr().out)
    assert [layer['path'] for layer in said['layers']] == ['decode_head.conv_seg']
    assert said['layers'][0]['shapes'] == [[1, 11, 8, 8]]
    assert verify_config.main([config, '--list-layers', '--grep', 'nothing']) == 1
    assert 'The top-level modules are' in capsys.readouterr().err


def test_memory_is_estimated(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify_config.main([config, '--memory', '--json']) == 0
    rows = json.loads(capsys.readouterr().out)['memory']
    assert [row['batch'] for row in rows] == [1, 2, 4, 8, 16]
    assert all(row['total'] > row['weights'] + row['activations'] > 0 for row in rows)


def test_the_checkpoint_to_go_on_from_is_judged(config: str, capsys: pytest.CaptureFixture[str], shared: Path) -> None:
    assert verify_config.main([config, '--resume', str(shared / 'segmentor.pth'), '--amp', '--launcher', 'none']) == 1
    assert 'has no optimizer' in ' '.join(capsys.readouterr().out.split())
    assert verify_config.main([config, '--static', '--resume']) == 0


def test_the_launcher_refuses_a_config_with_errors(config: str, tmp_path: Path) -> None:
    """VERIFY=1 hands the arguments of the training on, and ends with the code of the check."""
    (tmp_path / 'python').write_text('#!/bin/sh\necho "$@"\ncase "$1" in *verify_config.py) exit 1;; esac\n')
    (tmp_path / 'python').chmod(0o755)
    for script, words, gpus in (
        ('dist_train.sh', [config, '4'], '8'),
        ('slurm_train.sh', ['partition', 'job', config, 'work'], '8'),
    ):
        done = subprocess.run(
            [str(ROOT / 'tools' / script), *words, '--cfg-options', 'a=1'], capture_output=True, text=True,
            env={'PATH': f'{tmp_path}:/usr/bin:/bin', 'VERIFY': '1', 'NNODES': '2'}, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stdout.splitlines()
        assert 'verify_config.py' in line
        assert f'{config} --gpus {gpus}' in line
        assert line.endswith('--cfg-options a=1')
