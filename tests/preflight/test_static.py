from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import detector, distilled, feature_and_logit_pairs, segmentor
from engine_runs import run_config
from mmengine.config import Config
from torch import nn

from kdplugin.preflight.static import teacher_path, without
from kdplugin.preflight.verify import verify


@pytest.fixture
def config(shared: Path, tmp_path: Path) -> Config:
    return complete(
        run_config(shared, tmp_path / 'work', distilled(shared, feature_and_logit_pairs()), validate_every=2)
    )


def complete(config: Config) -> Config:
    """Let the schedule end with the run."""
    config.param_scheduler[0].end = 4
    return config


def told(config: Config) -> list[tuple[str, str]]:
    return [(one.level, one.where) for one in verify(config, static=True) if one.level != 'note']


def test_a_good_config_is_no_finding_and_stays_as_it_was(config: Config) -> None:
    before = copy.deepcopy(config.to_dict())
    assert told(config) == []
    assert config.to_dict() == before


def test_no_model_is_built(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError('a convolution was built')

    monkeypatch.setattr(nn.Conv2d, '__init__', refuse)
    assert told(config) == []


def test_one_mistake_does_not_hide_another(config: Config) -> None:
    config.train_cfg = [1]
    config.model.student.decode_head.num_classes = 5
    config.model.student.backbone.dpth = 18
    config.model.teacher.model.backbone.type = 'ResNett'
    config.model.pairs.logits.wieght = 1
    config.val_dataloader.sampler.type = 'InfiniteSampler'
    assert told(config) == [
        ('error', 'train_cfg'),
        ('error', 'train_cfg'),
        ('error', 'model.student.backbone.dpth'),
        ('error', 'val_dataloader.sampler'),
        ('error', 'model.teacher.model.backbone.type'),
        ('error', 'model.pairs.logits'),
        ('error', 'model.student.decode_head'),
    ]


def test_inherited_keys_are_told_once(config: Config) -> None:
    config.model.update(backbone=config.model.student.backbone)
    errors = [one.message for one in verify(config, static=True).errors]
    assert len(errors) == 1
    assert '_delete_=True' in errors[0]


def test_a_detector_without_data_is_checked() -> None:
    model = dict(type='kdplugin.Distiller', student=detector(), teacher=dict(model=detector(16), checkpoint='gone.pth'))
    found = verify(Config(dict(default_scope='mmdet', model=model)), static=True)
    assert {one.where for one in found.errors} == {'model.teacher.checkpoint', 'train_cfg'}
    assert found.broken == []


def test_parts_are_left_out_of_a_copy() -> None:
    config = Config(dict(a=1, b=2))
    assert without(config, {'a'}).to_dict() == dict(b=2)
    assert without(config, set()) is config
    assert [teacher_path(name) for name in ('teacher', 'big')] == ['model.teacher', 'model.teachers.big']


def test_a_plain_config_needs_no_teacher(shared: Path, tmp_path: Path) -> None:
    assert told(complete(run_config(shared, tmp_path, segmentor(), validate_every=2))) == []
