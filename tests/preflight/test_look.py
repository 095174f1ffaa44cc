from __future__ import annotations

from pathlib import Path

import pytest
from engine_fixtures import distilled, feature_and_logit_pairs, segmentor
from engine_runs import run_config
from mmengine.config import Config

from kdplugin.errors import ConfigError
from kdplugin.preflight.look import build_model, estimate_memory, list_layers


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> Config:
    return run_config(shared, tmp_path / 'work', distilled(shared, feature_and_logit_pairs()))


def test_both_models_are_listed_without_a_checkpoint(config: Config) -> None:
    config.model.teacher.checkpoint = 'gone.pth'
    widths = [
        next(layer.shapes[0][1] for layer in list_layers(config, owner)[0] if layer.path == 'backbone.layer1')
        for owner in ('student', 'teacher')
    ]
    assert widths == [8, 16]


def test_models_that_are_not_there(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"one of \['student', 'teacher'\] but got 'techer'. Did you mean 'teacher'"):
        build_model(config, 'techer')
    config.model.student.backbone.type = 'ResNett'
    with pytest.raises(ConfigError, match='Expected a registered type but ResNett'):
        build_model(config, 'student')


def test_memory_of_a_distillation_holds_the_teacher(config: Config) -> None:
    distilled_ = estimate_memory(config)
    config.model = Config(dict(model=segmentor())).model
    plain = estimate_memory(config)
    assert [one.batch for one in plain] == [1, 2, 4, 8, 16]
    assert plain[0].size == (64, 64)
    assert distilled_[0].weights > plain[0].weights
    assert distilled_[0].activations > plain[0].activations


def test_models_that_see_no_images_are_not_measured() -> None:
    config = Config(dict(model=dict(type='kdplugin.DiffusionDistiller', student={}, teacher={})))
    with pytest.raises(ConfigError, match=r'Expected models of images to measure but got .* docs/wan.md has its'):
        estimate_memory(config)
