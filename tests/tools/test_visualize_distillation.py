"""The tool from the command line to its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import visualize_distillation
from engine_fixtures import kd_segmentor, segmentor
from engine_fixtures import shared as shared
from engine_runs import run_config

pytestmark = pytest.mark.usefixtures('without_layout')


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> str:
    content = run_config(shared, tmp_path / 'run', kd_segmentor(shared), validate_every=2)
    content.dump(tmp_path / 'kd.py')
    return str(tmp_path / 'kd.py')


def test_it_writes_what_it_says(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ['--out', str(tmp_path / 'out'), '--count', '1', '--pairs', 'logits']
    assert visualize_distillation.main([config, *words, '--cfg-options', 'model.pairs.logits.weight=1.0']) == 0
    said = capsys.readouterr().out
    assert 'student as it is initialised, not yet trained' in said
    assert 'The value is the same before' not in said
    written = [line.removeprefix('wrote ') for line in said.splitlines() if line.startswith('wrote ')]
    assert [Path(line).name for line in written] == ['00_000000_logits.png', 'numbers.json']
    assert all(Path(line).is_file() for line in written)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['gone.png'], 'error: Expected image files but gone.png does not exist. Check the path.'),
        ([__file__], 'error: Expected an image that the validation pipeline reads but'),
        (['--checkpoint', 'gone.pth'], 'error: Expected a checkpoint file but gone.pth does not exist.'),
        (['--pairs', 'logit'], "error: Expected pairs of ['feature', 'logits'] but got 'logit'. Did you mean 'logits'"),
        (['--cfg-options', 'model.pairs={}'], 'error: Expected pairs with a weight above 0 in'),
        (
            ['--cfg-options', 'model.pairs.logits.tap=auxiliary_head.conv_sge'],
            "error: Expected a module path of the student but got 'auxiliary_head.conv_sge'",
        ),
        (
            ['--cfg-options', 'model.pairs.logits.tap=data_preprocessor'],
            'error: Expected the student to run once on a synthetic image with every tap firing but got',
        ),
    ],
)
def test_mistakes(
    words: list[str], message: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert visualize_distillation.main([config, '--out', str(tmp_path / 'out'), *words]) == 1
    assert message in capsys.readouterr().err
    assert not list((tmp_path / 'out').glob('*'))


def test_a_plain_config_is_told(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_config(shared, tmp_path / 'run', segmentor(), validate_every=2).dump(tmp_path / 'plain.py')
    assert visualize_distillation.main([str(tmp_path / 'plain.py'), '--out', str(tmp_path / 'out')]) == 1
    assert 'Expected a model of type kdplugin.Distiller in' in capsys.readouterr().err
