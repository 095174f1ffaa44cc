from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, distilled, save_weights, segmentor
from engine_runs import run_config
from mmengine.config import Config

from kdplugin.distill.teachers.teacher import TEACHER_KEYS
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.models import (
    check_frozen,
    check_initial_weights,
    check_preprocessing,
    check_pretrained,
    check_student,
    check_teacher,
    check_teacher_keys,
    hub_files,
    is_here,
    pretrained_files,
)


def messages(found: Findings, level: str = 'error') -> list[str]:
    return [finding.message for finding in found if finding.level == level]


def test_the_student_is_built_and_counted(shared: Path, tmp_path: Path) -> None:
    found = Findings()
    student, ready = check_student(found, run_config(shared, tmp_path, distilled(shared, {})))
    assert student is not None
    assert ready
    size = sum(parameter.numel() for parameter in student.parameters())
    assert [f'EncoderDecoder, {size:,}' in message for message in messages(found, 'note')] == [True]


def test_the_student_starts_from_its_pretrained_weights(tmp_path: Path) -> None:
    settings = segmentor()
    file = save_weights(settings, tmp_path / 'student.pth')
    settings['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    found = Findings()
    student, ready = check_student(found, Config(dict(model=settings)))
    assert student is not None
    assert ready
    saved = torch.load(file, weights_only=True)['state_dict']
    assert all(torch.equal(value, saved[name]) for name, value in student.state_dict().items())
    assert found.errors == []


def test_a_student_that_does_not_build_or_has_no_weights() -> None:
    settings = segmentor()
    settings['backbone'].update(init_cfg=dict(type='Pretrained', checkpoint='gone.pth'))
    found = Findings()
    student, ready = check_student(found, Config(dict(model=settings)))
    assert student is not None
    assert not ready
    settings['backbone'].update(type='ResNett')
    assert check_student(found, Config(dict(model=settings))) == (None, False)
    assert 'ResNett is not in the mmseg::model registry. Correct the name' in messages(found)[0]


def test_pretrained_files_are_found_wherever_they_are_named() -> None:
    model = dict(
        backbone=dict(init_cfg=[dict(type='Kaiming'), dict(type='Pretrained', checkpoint='a.pth')]),
        pretrained='open-mmlab://resnet50_v1c',
    )
    assert sorted(pretrained_files(model)) == ['a.pth', 'open-mmlab://resnet50_v1c']
    found = Findings()
    check_pretrained(found, 'model', ['open-mmlab://resnet50_v1c', 'gone.pth', __file__])
    assert [(one.level, one.where) for one in found] == [('note', 'model'), ('error', 'model')]
    assert messages(found)[0] == (
        'Expected the weights gone.pth but there is no such file. Correct init_cfg or load_from.'
    )


def test_what_has_to_be_downloaded_is_not_here(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path))
    address = 'https://example.com/models/teacher.pth'
    assert not is_here(address)
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / 'teacher.pth').touch()
    assert is_here(address)
    assert not is_here('open-mmlab://no-such-model')
    assert list(hub_files(dict(backbone=dict(model_name='resnet18', pretrained=True)))) == ['timm://resnet18']
    assert not is_here('timm://resnet18')


def test_a_teacher_that_is_not_here_has_random_weights(shared: Path) -> None:
    found = Findings()
    module, teacher = check_teacher(found, teacher_of(shared, checkpoint='https://example.com/gone.pth'))
    assert teacher is not None
    assert teacher.module is module
    assert teacher.sha256 == ''
    assert [one.level for one in found] == ['note']
    assert 'Give --download to fetch it.' in found[0].message


def test_frozen_patterns_are_judged_one_by_one() -> None:
    student, found = build(segmentor()), Findings()
    names = check_frozen(found, ['backbone.layer1', 'backbon.*', 'neck'], student)
    assert names == ['backbone.layer1']
    assert len(found) == 2
    assert "'backbon.*' matches nothing" in messages(found)[0]
    assert "'neck' matches nothing" in messages(found)[1]
    assert not any(parameter.requires_grad for parameter in student.backbone.layer1.parameters())
    assert all(parameter.requires_grad for parameter in student.backbone.layer2.parameters())


def test_freezing_everything_is_an_error() -> None:
    found = Findings()
    check_frozen(found, ['backbone', 'decode_head'], build(segmentor()))
    assert 'Expected something left to train but' in messages(found)[0]


def teacher_of(shared: Path, **changes: Any) -> dict[str, Any]:
    return {**dict(model=segmentor(16, dropout=0.5), checkpoint=str(shared / 'segmentor.pth')), **changes}


def test_a_good_teacher_is_loaded(shared: Path) -> None:
    found = Findings()
    module, teacher = check_teacher(found, teacher_of(shared))
    assert teacher is not None
    assert teacher.module is module
    assert messages(found, 'note')[0].startswith(f'all {teacher.tensors} tensors loaded')
    assert found.errors == []


def test_several_mistakes_of_a_teacher_are_told_together(shared: Path) -> None:
    found = Findings()
    settings = teacher_of(shared, ckpt='x', cfg='gone.py', checkpoint='gone.pth')
    check_teacher_keys(found, settings, 'model.teacher')
    assert check_teacher(Findings(), settings) == (None, None)
    assert [message.split('. ')[0] for message in messages(found)] == [
        f"Expected keys {list(TEACHER_KEYS)} in teacher but got 'ckpt'.",
        "Expected either cfg or model in teacher but got ['cfg', 'checkpoint', 'ckpt', 'model']",
        'Expected a checkpoint file but gone.pth does not exist',
    ]


def test_a_missing_config_is_an_error() -> None:
    found = Findings()
    check_teacher(found, dict(cfg='gone.py', checkpoint='gone.pth'))
    assert [message.split('. ')[0] for message in messages(found)] == [
        'Expected a teacher config file but gone.py does not exist',
    ]


def test_a_missing_checkpoint_leaves_a_model_to_look_at(shared: Path) -> None:
    found = Findings()
    module, teacher = check_teacher(found, teacher_of(shared, checkpoint='gone.pth'))
    assert module is not None
    assert teacher is not None
    assert teacher.sha256 == ''


def test_a_checkpoint_of_another_model_names_what_does_not_fit(shared: Path) -> None:
    found = Findings()
    check_teacher(found, teacher_of(shared, model=segmentor(8)))
    assert 'to fit the model in all' in messages(found)[0]
    assert 'of another shape (such as backbone.conv1.weight (16, 3, 7, 7) instead of (8, 3, 7, 7)' in messages(found)[0]


def test_a_checkpoint_without_a_model_is_said_to_be_unchecked(shared: Path) -> None:
    found = Findings()
    check_teacher(found, teacher_of(shared, model=dict(type='NoModel')))
    assert 'NoModel is not in the' in messages(found)[0]
    assert messages(found, 'note') == [
        'not checked: whether the checkpoint fits, because there is no model to load it into.'
    ]


def test_another_preprocessing_is_a_warning() -> None:
    other = segmentor()
    other['data_preprocessor'] = {**other['data_preprocessor'], 'mean': [0.0, 0.0, 0.0]}
    student, found = build(segmentor()), Findings()
    check_preprocessing(found, student, build(segmentor(16)))
    assert found == []
    check_preprocessing(found, student, build(other))
    assert [finding.level for finding in found] == ['warning']
    assert 'to normalise images alike but got mean' in found[0].message


def test_the_first_weights_are_named_by_a_dict_with_a_file() -> None:
    def said(settings: Any) -> list[tuple[str, str]]:
        found = Findings()
        check_initial_weights(found, dict(necks=[dict(init_cfg=settings)]), 'model')
        return [(one.where, one.message) for one in found.errors]

    good = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    assert said(good) == said([good, dict(type='Kaiming')]) == said(None) == said({**good, 'checkpoint': 'a.pth'}) == []
    for settings, cure in (
        ('torchvision://resnet18', "Write dict(type='Pretrained', checkpoint=...)"),
        (dict(type='Pretrained'), 'Give the file or remove init_cfg'),
        (dict(good, checkpoint='torchvison://resnet18'), "Did you mean 'torchvision://'"),
    ):
        ((where, message),) = said(settings)
        assert where == 'model.necks.0.init_cfg'
        assert cure in message


def test_a_teacher_that_is_no_dict_of_its_own(tmp_path: Path) -> None:
    found = Findings()
    check_teacher_keys(found, dict(cfg='a.py', checkpoint=str(tmp_path)), 'model.teacher')
    ((where, message),) = [(one.where, one.message) for one in found.errors]
    assert where == 'model.teacher.checkpoint'
    assert 'does not exist. It is a folder. Check the path.' in message


@pytest.mark.parametrize(
    ('layer', 'near'),
    [('Conv2D', 'Conv2d'), (['BatchNorm2d', 'GroupNrm'], 'GroupNorm'), (['_BatchNorm', 'Conv2d'], None), ('DCN', None)],
)
def test_layers_that_are_initialised_exist(layer: Any, near: str | None) -> None:
    found = Findings()
    check_initial_weights(found, dict(neck=dict(init_cfg=[dict(type='Kaiming', layer=layer)])), 'model')
    assert [(one.level, one.where) for one in found] == [('error', 'model.neck.init_cfg.layer')] * (near is not None)
    assert all(f'Did you mean {near!r}?' in one.message for one in found)
