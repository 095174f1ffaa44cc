from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import segmentor
from mmengine.config import Config
from mmengine.registry import init_default_scope

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.models import check_preprocessing
from kdplugin.preflight.teacher_config import (
    check_cache_settings,
    check_teacher_images,
    same_file,
    student_settings,
    teacher_model,
    whole_config,
    with_preprocessor,
)


def test_preprocessors_are_compared_without_their_models() -> None:
    init_default_scope('mmseg')
    ours, theirs = segmentor(), segmentor(16)
    theirs['data_preprocessor']['mean'] = [0.0, 0.0, 0.0]
    found = Findings()
    check_preprocessing(found, with_preprocessor(ours), with_preprocessor(ours))
    assert found == []
    check_preprocessing(found, with_preprocessor(ours), with_preprocessor(theirs))
    assert [(one.level, one.where) for one in found] == [('warning', 'model.teacher')]
    assert with_preprocessor(dict(data_preprocessor=dict(type='Gone'))) is None
    assert with_preprocessor(None) is None


def test_configs_of_a_teacher(tmp_path: Path) -> None:
    (tmp_path / 't.py').write_text("model = dict(type='A')\ndefault_scope = 'mmseg'\n")
    found = Findings()
    settings = dict(cfg=str(tmp_path / 't.py'))
    assert teacher_model(found, settings, 'model.teacher') == dict(type='A', _scope_='mmseg')
    whole = whole_config(settings)
    assert whole is not None
    assert whole.default_scope == 'mmseg'
    assert teacher_model(found, dict(cfg='gone.py'), 'model.teacher') is None
    assert [one.level for one in found] == ['error']
    assert teacher_model(found, {}, 'model.teacher') is None
    assert whole_config(dict(model={})) is None
    assert student_settings(Config({})) is None


def test_a_student_does_not_begin_as_its_teacher(tmp_path: Path) -> None:
    file = str(tmp_path / 'a.pth')
    assert same_file(Config(dict(load_from=file)), dict(checkpoint=f'{tmp_path}/./a.pth'))
    assert not same_file(Config(dict(load_from=file)), dict(checkpoint='b.pth'))
    assert not same_file(Config({}), dict(checkpoint=file))


def images(resized: Any, **settings: Any) -> list[tuple[str, str, str]]:
    pipeline = [dict(type='Resize', scale=resized, keep_ratio=True)]
    config = Config(dict(train_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline))))
    found = Findings()
    check_teacher_images(found, config, settings, 'model.teacher')
    assert all(all(one.parts) for one in found)
    return [(one.level, one.where, one.message) for one in found]


@pytest.mark.parametrize('settings', [dict(input_size=(800, 1333)), dict(input_size=[640, 640]), dict(scale=0.5), {}])
def test_images_as_a_teacher_takes_them(settings: dict[str, Any]) -> None:
    assert images((1333, 800), **settings) == []
    assert images((640, 640), input_size=(96, 320)) == []


@pytest.mark.parametrize(
    ('settings', 'key', 'message'),
    [
        (dict(input_size=(1333, 800)), 'input_size', 'Write input_size=(800, 1333).'),
        (dict(input_size=(8, 8)), 'input_size', 'Nothing is left of the image'),
        (dict(scale=0.01), 'scale', 'correct scale'),
    ],
)
def test_images_that_no_teacher_was_trained_on(settings: dict[str, Any], key: str, message: str) -> None:
    ((level, where, told),) = images((1333, 800), **settings)
    assert (level, where) == ('warning', f'model.teacher.{key}')
    assert message in told


def test_a_cache_has_a_folder_and_room(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    for folder, size, expected in (
        (tmp_path / 'new' / 'folder', '20GB', []),
        (tmp_path / 'file', '20GB', [('error', 'model.teacher.cache.dir')]),
        (tmp_path / 'file' / 'below', '20GB', [('error', 'model.teacher.cache.dir')]),
        (tmp_path, 20, [('warning', 'model.teacher.cache.max_bytes')]),
        (tmp_path, 'much', []),
    ):
        found = Findings()
        check_cache_settings(found, dict(cache=dict(dir=str(folder), max_bytes=size)), 'model.teacher')
        assert [(one.level, one.where) for one in found] == expected
        assert not found or size != 20 or "Did you mean '20GB'?" in found[0].message
