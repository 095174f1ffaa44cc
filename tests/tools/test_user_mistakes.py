"""A user's mistake ends in one clear message and an exit code that is not 0, in training as in preflight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import train
import verify_config
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentor, shared
from engine_runs import run_config

__all__ = ['shared']

pytestmark = pytest.mark.usefixtures('without_layout')


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    'wrong tap': (
        {'model.pairs.logits.tap': 'decode_head.conv_sge'},
        "Expected a module path of the student but got 'decode_head.conv_sge'. Did you mean 'decode_head.conv_seg'",
    ),
    'unknown loss': (
        {'model.pairs.logits.loss': dict(type='kdplugin.KLLoss')},
        "Expected a known loss type in pair 'logits' but got 'kdplugin.KLLoss'. Did you mean",
    ),
    'unknown key': (
        {'model.pairs.logits.wieght': 1.0},
        "in pair 'logits' but got 'wieght'. Did you mean 'weight'?",
    ),
    'frozen nothing': (
        {'model.frozen': ['backbon.*']},
        "Expected a pattern that selects something in the student but 'backbon.*' matches nothing",
    ),
    'classes of student and data': (
        {'model.student.decode_head.num_classes': 5, 'model.pairs': {}},
        'Expected decode_head to predict the 11 classes of train_dataloader and val_dataloader but got 5. Set',
    ),
    'classes of student and teacher': (
        {'model.teacher': 'five classes'},
        "Expected student and teacher of pair 'logits' to predict the same classes but",
    ),
    'missing teacher file': (
        {'model.teacher.checkpoint': 'gone.pth'},
        'Expected a checkpoint file but gone.pth does not exist. Check the path.',
    ),
    'missing teacher config': (
        {'model.teacher': dict(cfg='gone.py', checkpoint='gone.pth')},
        'Expected a teacher config file but gone.py does not exist. Check teacher.cfg.',
    ),
    'checkpoint of another model': (
        {'model.teacher.model': segmentor(8)},
        'to fit the model in all',
    ),
    'checkpoint that is none': (
        {'model.teacher.checkpoint': __file__},
        'is damaged or not a PyTorch file',
    ),
    'work dir below a file': ({'work_dir': f'{__file__}/work'}, 'Expected a writable work dir but'),
    'missing data': (
        {'train_dataloader.dataset.data_prefix.img_path': 'gone'},
        'gone',
    ),
    'no images': (
        {'train_dataloader.dataset.img_suffix': '.jpg', 'train_dataloader.dataset.serialize_data': True},
        'Expected images in every dataset but one found none. Check data_prefix',
    ),
    'unknown type': (
        {'model.student.backbone.type': 'ResNett'},
        'Expected a registered type but ResNett is not in the mmseg::model registry. Correct the name',
    ),
}


@pytest.fixture(params=list(MISTAKES))
def mistake(request: pytest.FixtureRequest, shared: Path, tmp_path: Path) -> tuple[str, str]:
    """A config with one mistake in it, and what has to be said about that."""
    changes, message = MISTAKES[request.param]
    config = run_config(shared, tmp_path / 'work', distilled(shared, feature_and_logit_pairs()), validate_every=2)
    if 'model.pairs' in changes:
        config.model.pairs = {}
        changes = {key: value for key, value in changes.items() if key != 'model.pairs'}
    if changes.get('model.teacher') == 'five classes':
        model = segmentor(16, classes=5)
        torch.save({'state_dict': build(model).state_dict()}, tmp_path / 'five.pth')
        changes = {'model.teacher': dict(model=model, checkpoint=str(tmp_path / 'five.pth'))}
    if 'cfg' in changes.get('model.teacher', {}):
        config.model.teacher = {}
    config.merge_from_dict(changes)
    config.dump(tmp_path / 'kd.py')
    return str(tmp_path / 'kd.py'), message


def test_training_says_it_in_one_line(mistake: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    config, message = mistake
    assert train.main([config]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1
    assert message in lines[0]


def test_preflight_reports_it(mistake: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    config, message = mistake
    assert verify_config.main([config]) == 1
    assert message.replace(' ', '') in ''.join(capsys.readouterr().out.split())


@pytest.mark.parametrize('tool', [train, verify_config], ids=['train', 'verify_config'])
@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['gone.py'], 'Expected a config file but gone.py does not exist'),
        (['{config}', '--cfg-options', 'seed'], "Expected --cfg-options key=value but got 'seed'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    tool: Any, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'kd.py').write_text('model = dict()\n')
    code = 2 if tool is verify_config else 1  # it could not check
    assert tool.main([word.format(config=tmp_path / 'kd.py') for word in arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith(f'error: {message}')
    assert error.count('\n') == 1
