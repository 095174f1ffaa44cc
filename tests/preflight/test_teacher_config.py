from __future__ import annotations

from pathlib import Path

from engine_fixtures import segmentor
from mmengine.config import Config
from mmengine.registry import init_default_scope

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.models import check_preprocessing
from kdplugin.preflight.teacher_config import (
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
