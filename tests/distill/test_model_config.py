from __future__ import annotations

import pytest
from mmengine.config import Config

from kdplugin.distill.model_config import is_distiller, learns_velocities, plain_model_config, student_config
from kdplugin.errors import ConfigError

STUDENT = dict(type='A', width=8)


def config(model: dict, **top: dict) -> Config:
    return Config(dict(model=model, **top))


def test_a_distillation_config_and_its_baseline_have_the_same_plain_model() -> None:
    distilled = dict(type='kdplugin.Distiller', student=STUDENT)
    for preprocessor in ({}, {'data_preprocessor': dict(type='P')}):
        plain = plain_model_config(config(STUDENT, **preprocessor))
        assert plain == plain_model_config(config(distilled, **preprocessor)) == {**STUDENT, **preprocessor}


def test_the_models_own_preprocessor_wins_and_the_config_is_left_alone() -> None:
    whole = config(dict(STUDENT, data_preprocessor=dict(type='Own')), data_preprocessor=dict(type='P'))
    assert plain_model_config(whole).data_preprocessor.type == 'Own'
    plain_model_config(whole).width = 99
    assert whole.model.width == STUDENT['width']


def test_a_distillers_preprocessor_goes_to_its_student() -> None:
    whole = config(dict(type='kdplugin.Distiller', student=STUDENT, data_preprocessor=dict(type='D')))
    assert plain_model_config(whole).data_preprocessor.type == 'D'


def test_the_student_is_copied() -> None:
    model = dict(type='kdplugin.Distiller', student=dict(STUDENT))
    student_config(model)['width'] = 99
    assert model['student'] == STUDENT
    assert student_config(STUDENT) == STUDENT


@pytest.mark.parametrize(
    ('kind', 'answer'), [('kdplugin.Distiller', True), ('EncoderDecoder', False), ('mmdet.FCOS', False), (None, False)]
)
def test_is_distiller(kind: str | None, answer: bool) -> None:
    assert is_distiller({'type': kind}) is answer


def test_a_config_without_a_model() -> None:
    with pytest.raises(ConfigError, match=r'Expected a model in .* but got none'):
        plain_model_config(Config(dict(train_cfg=dict())))


def test_a_student_of_velocities_is_one_too() -> None:
    model = dict(type='kdplugin.DiffusionDistiller', student=STUDENT, teacher=dict(path='a'))
    assert plain_model_config(config(model)) == STUDENT
    assert learns_velocities(model)
    assert not learns_velocities(dict(type='kdplugin.Distiller'))
    assert not learns_velocities(STUDENT)
