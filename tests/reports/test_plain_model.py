from __future__ import annotations

import pytest
from mmengine.config import Config
from synthetic_runs import STUDENT, TinySegmentor, distilled, recipe

from kdplugin.errors import ConfigError
from kdplugin.reports.plain_model import build_plain_model, is_distiller, plain_model_config


def test_a_distillation_config_and_its_baseline_have_the_same_plain_model() -> None:
    plain, kd = Config(recipe()), Config(distilled())
    assert plain_model_config(kd) == plain_model_config(plain)
    assert plain_model_config(plain) == {**STUDENT, 'data_preprocessor': plain.data_preprocessor}


def test_the_models_own_preprocessor_wins_and_the_config_is_left_alone() -> None:
    config = Config(recipe(model=dict(STUDENT, data_preprocessor=dict(type='Own'))))
    assert plain_model_config(config).data_preprocessor.type == 'Own'
    plain_model_config(config).width = 99
    assert config.model.width == STUDENT['width']


def test_the_model_is_built_in_eval_mode_with_the_students_class() -> None:
    for config in (Config(recipe()), Config(distilled())):
        model = build_plain_model(config)
        assert type(model) is TinySegmentor
        assert not model.training


@pytest.mark.parametrize(
    ('kind', 'answer'), [('kdplugin.Distiller', True), ('EncoderDecoder', False), ('mmdet.FCOS', False), (None, False)]
)
def test_is_distiller(kind: str | None, answer: bool) -> None:
    assert is_distiller({'type': kind}) is answer


def test_a_config_without_a_model() -> None:
    with pytest.raises(ConfigError, match=r'Expected a model in .* but got none'):
        plain_model_config(Config(dict(train_cfg=dict())))
