"""Measured once, kept beside the checkpoint, believed only of the same file and data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentor, shared
from engine_runs import run_config
from mmengine.config import Config

from kdplugin import launch
from kdplugin.distill.distiller import distillation_of
from kdplugin.distill.teachers.teacher import build_teacher
from kdplugin.errors import CheckpointError
from kdplugin.hooks.distillation_hook import describe, notes_of
from kdplugin.reports.teacher_metric import data_key, recall, write_measurement

__all__ = ['shared']


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / 'teacher.pth').write_bytes(b'weights')
    return tmp_path / 'teacher.pth'


def config(**dataset: Any) -> Config:
    settings = dict(type='CocoDataset', data_root='data/x', ann_file='val.json', **dataset)
    return Config(dict(test_dataloader=dict(dataset=settings), test_evaluator=dict(type='CocoMetric')))


def test_what_was_written_is_read_beside_the_checkpoint(checkpoint: Path) -> None:
    key = data_key(config())
    write_measurement(checkpoint, key, {'coco/bbox_mAP': 0.4021, 'coco/bbox_mAP_50': 0.6})
    (found,) = recall(checkpoint)
    assert found.metrics == {'coco/bbox_mAP': 0.4021, 'coco/bbox_mAP_50': 0.6}
    assert str(found) == 'bbox_mAP 0.4021, bbox_mAP_50 0.6 on data/x (CocoDataset)'
    assert recall(checkpoint, data=key[0]) == recall(checkpoint, found.sha256) == [found]
    assert Path(f'{checkpoint}.metrics.json').is_file()


def test_other_data_stand_beside_it_and_the_same_data_replace_it(checkpoint: Path) -> None:
    write_measurement(checkpoint, ('one', 'x'), dict(mIoU=1.0))
    write_measurement(checkpoint, ('two', 'y'), dict(mIoU=2.0))
    write_measurement(checkpoint, ('one', 'x'), dict(mIoU=3.0))
    assert [one.metrics['mIoU'] for one in recall(checkpoint)] == [2.0, 3.0]
    assert recall(checkpoint, data='three') == []


def test_a_file_that_changed_since_has_no_measurement(checkpoint: Path) -> None:
    write_measurement(checkpoint, ('one', 'x'), dict(mIoU=1.0))
    checkpoint.write_bytes(b'other weights')
    assert recall(checkpoint) == []
    assert recall('no/such.pth') == []
    assert recall('s3://bucket/teacher.pth') == []


def test_data_are_their_settings_annotations_and_evaluator(tmp_path: Path) -> None:
    (tmp_path / 'val.json').write_text('[]')
    base = dict(data_root=str(tmp_path))
    first = data_key(Config({**config(), 'test_dataloader': dict(dataset=dict(base, ann_file='val.json'))}))
    assert len({data_key(config())[0], data_key(config(test_mode=True))[0], first[0]}) == 3
    assert data_key(config()) == data_key(config())
    (tmp_path / 'val.json').write_text('[1]')
    assert data_key(Config({**config(), 'test_dataloader': dict(dataset=dict(base, ann_file='val.json'))})) != first
    assert data_key(Config(dict(config(), test_evaluator=dict(type='VOCMetric')))) != data_key(config())


@pytest.mark.parametrize('text', ['{', '[{"sha256": "x"}]', '[3]'])
def test_a_damaged_file_is_an_error(checkpoint: Path, text: str) -> None:
    Path(f'{checkpoint}.metrics.json').write_text(text)
    with pytest.raises(CheckpointError, match=r'measurements in .*\.metrics\.json but got .* Delete it and test again'):
        recall(checkpoint)


def test_a_test_is_remembered_and_told_when_its_checkpoint_teaches(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / 'segmentor.pth'
    weights.write_bytes((shared / 'segmentor.pth').read_bytes())
    whole = run_config(shared, tmp_path / 'run', segmentor(16), validate_every=4)
    whole.update(
        test_dataloader=whole.val_dataloader, test_cfg=dict(type='TestLoop'), test_evaluator=whole.val_evaluator
    )
    metrics = launch.measure(launch.prepare(Config(whole.to_dict())), str(weights))
    assert json.loads(Path(f'{weights}.metrics.json').read_text())[0]['metrics'] == pytest.approx(metrics)
    with monkeypatch.context() as patch:
        patch.setattr(launch, 'build_runner', lambda config: pytest.fail('tested again'))
        assert launch.measure(launch.prepare(Config(whole.to_dict())), str(weights)) == metrics
    model = distilled(shared, feature_and_logit_pairs())
    model['teacher'].update(checkpoint=str(weights), precision='bfloat16')
    student = build(model)
    distillation = distillation_of(student)
    assert distillation is not None
    how, measured = notes_of(distillation.teachers['teacher'])
    assert how == 'runs bfloat16, channels_last, up to its deepest tap'
    assert measured.startswith('measured aAcc ')
    assert notes_of(build_teacher(model['teacher']))[0].startswith('runs not at all: none of its pairs')
    report = describe(student, distillation)
    assert how in report
    assert 'mIoU' in report
