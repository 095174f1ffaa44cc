from __future__ import annotations

import pytest
from engine_fixtures import detector

from kdplugin.errors import ConfigError
from kdplugin.migration.mmrazor_models import installed_path, read_source, scoped, zoo_weights
from kdplugin.migration.notes import Note

GFL = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'


def test_a_path_is_read_and_what_stands_beside_it_is_a_default() -> None:
    source = read_source(dict(cfg_path=GFL, pretrained=False, init_cfg='own', type=None), 'teacher', [])
    assert (source.path, source.scope, source.weights) == (GFL, 'mmdet', None)
    assert source.config.model.type == 'GFL'
    assert source.config.model.init_cfg == 'own'
    assert scoped(source, 'mmseg')._scope_ == 'mmdet'
    assert '_scope_' not in source.config.model


def test_preprocessing_at_the_top_is_the_models() -> None:
    source = read_source(dict(cfg_path='mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'), 'teacher', [])
    assert tuple(source.config.model.data_preprocessor['size']) == (512, 1024)


def test_a_model_written_out_stays_what_it_is() -> None:
    source = read_source(detector(), 'architecture', [])
    assert (source.path, source.scope) == (None, None)
    assert source.config.model.to_dict() == detector()


def test_pretrained_is_what_the_model_zoo_lists() -> None:
    source = read_source(dict(cfg_path=GFL, pretrained=True), 'teacher', [])
    assert source.weights == zoo_weights(GFL, 'teacher')
    assert str(source.weights).endswith('gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth')
    with pytest.raises(ConfigError, match=r'Expected weights for mmdet::_base_/x\.py in the model zoo .* lists none'):
        zoo_weights('mmdet::_base_/x.py', 'teacher')


def test_names_that_changed_between_releases_are_found_and_told() -> None:
    notes: list[Note] = []
    old = 'mmdet::faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py'
    assert installed_path(old, 'architecture', notes) == 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    assert [(note.kind, note.where) for note in notes] == [('converted', 'architecture')]
    assert installed_path(GFL, 'architecture', notes) == GFL
    assert len(notes) == 1


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            dict(cfg_path='mmdet::gfl/nothing.py'),
            r'Expected the config mmdet::gfl/nothing\.py of the teacher but .* none',
        ),
        (
            dict(cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py'),
            r"a config of mmdet or mmseg for the teacher but got 'mmcls",
        ),
        (dict(cfg_path='gfl.py'), r"for the teacher but got 'gfl\.py'"),
        (dict(pretrained=True), r"Expected cfg_path or type in teacher but got \['pretrained'\]"),
    ],
)
def test_what_is_not_there_is_an_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_source(settings, 'teacher', [])
