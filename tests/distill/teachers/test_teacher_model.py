"""Models of teacher configs, and loading that leaves no tensor out; more of both in ``test_teacher.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_fixtures import segmentor
from mmengine.config import Config
from torch import nn

from kdplugin.distill.teachers.teacher_model import build_teacher_model, load_strictly, teacher_model_config
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.reading.io import hash_tensors


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', 'EncoderDecoder'),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'YOLOX'),
    ],
)
def test_cfg_may_name_a_config_of_an_installed_package(name: str, kind: str) -> None:
    assert type(build_teacher_model(dict(cfg=name))).__name__ == kind


def test_a_refused_file_changes_nothing() -> None:
    module = nn.Linear(2, 2)
    before = hash_tensors(module.state_dict())
    with pytest.raises(CheckpointError):
        load_strictly(module, {'weight': torch.zeros(2, 2)}, 'it')
    assert hash_tensors(module.state_dict()) == before


def test_the_model_config_of_a_file_has_its_preprocessor_and_scope(tmp_path: Path) -> None:
    model = {key: value for key, value in segmentor().items() if key not in ('_scope_', 'data_preprocessor')}
    preprocessor = segmentor()['data_preprocessor']
    Config(dict(default_scope='mmseg', model=model, data_preprocessor=preprocessor)).dump(tmp_path / 'x.py')
    found = teacher_model_config(dict(cfg=str(tmp_path / 'x.py')))
    assert (found['_scope_'], found['data_preprocessor']['mean']) == ('mmseg', preprocessor['mean'])
    assert teacher_model_config(dict(model=model)) == model


def test_a_file_that_does_not_parse_is_an_error(tmp_path: Path) -> None:
    (tmp_path / 'x.py').write_text('model = (')
    with pytest.raises(ConfigError, match=r'the teacher config .*x\.py to parse but got'):
        teacher_model_config(dict(cfg=str(tmp_path / 'x.py')))


def test_all_tensors_arrive_and_old_files_may_lack_batch_counts() -> None:
    source, target = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.uniform_(source.running_mean)
    weights = {key: value for key, value in source.state_dict().items() if key != 'num_batches_tracked'}
    load_strictly(target, weights, 'it')
    assert torch.equal(target.running_mean, source.running_mean)
    del weights['running_var']
    with pytest.raises(
        CheckpointError, match=r'it to fit the model in all 5 tensors but 3 fit: 1 missing .*running_var'
    ):
        load_strictly(target, weights, 'it')
