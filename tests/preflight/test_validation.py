from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, detector, segmentor
from engine_runs import run_config
from method_models import mask_rcnn
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from kdplugin.distill.probe import synthetic_batch
from kdplugin.preflight import validation
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.validation import check_validation, low_thresholds


def test_validation_runs_on_its_first_image(shared: Path, tmp_path: Path) -> None:
    init_default_scope('mmseg')
    config = run_config(shared, tmp_path, segmentor(), validate_every=2)
    found = Findings()
    student = build(Config(dict(model=segmentor())).model)
    check_validation(found, config, student, True)
    check_validation(found, config, student, False)
    assert found == []
    config.val_dataloader.dataset.pipeline[0].type = 'Gone'
    check_validation(found, config, student, True)
    assert [(one.level, one.where) for one in found] == [('error', 'val_dataloader')]
    broken = segmentor()
    broken['test_cfg'] = dict(mode='slide')
    other = Findings()
    check_validation(other, config, build(Config(dict(model=broken)).model), False)
    assert 'the student to predict' in other[0].message


class Sized(nn.Module):
    """Predicts on images of one size only, and remembers all sizes that it saw."""

    def __init__(self, only: int | None) -> None:
        super().__init__()
        self.only, self.seen = only, []

    def data_preprocessor(self, data: Any, training: bool) -> Any:
        return data

    def forward(self, inputs: torch.Tensor, data_samples: Any, mode: str) -> None:
        self.seen.append(inputs.shape[-1])
        if self.only not in (None, inputs.shape[-1]):
            raise ValueError(f'no {inputs.shape[-1]}')

    def val_step(self, data: Any) -> None:
        self(**self.data_preprocessor(data, False), mode='predict')


@pytest.mark.parametrize(('only', 'seen'), [(None, [416]), (640, [416, 640]), (641, [416, 640])])
def test_a_large_validation_image_is_made_small_unless_the_student_wants_it_as_it_is(
    only: int | None, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, samples = synthetic_batch(build(detector(), initialise=False), (640, 640))
    batch = dict(inputs=inputs, data_samples=samples)
    monkeypatch.setattr(validation, '_first', lambda settings: (batch, {}))
    found, student = Findings(), Sized(only)
    check_validation(found, Config(dict(val_dataloader=dict(dataset=dict()))), student, True)
    assert student.seen == seen
    assert [one.message for one in found] == (
        ['Expected the student to predict but got ValueError: no 640. Correct this part of the config.']
        if only == 641
        else []
    )


@pytest.mark.parametrize('settings', [detector(), mask_rcnn()], ids=['one stage', 'two stages'])
def test_a_student_that_has_learnt_nothing_finds_something(settings: dict) -> None:
    student: Any = build(ConfigDict(settings))
    inputs, samples = synthetic_batch(student, (64, 64))
    head = student.roi_head if 'roi_head' in settings else student.bbox_head
    head.test_cfg['score_thr'] = 0.999
    before = head.test_cfg

    def boxes() -> int:
        student.eval()
        with torch.no_grad():
            return len(student(inputs, samples, mode='predict')[0].pred_instances)

    assert boxes() == 0
    with low_thresholds(student):
        assert boxes() > 0
    assert head.test_cfg is before
    assert before['score_thr'] == 0.999


def detection_config(tmp_path: Path, **metric: Any) -> Config:
    """Return a config whose validation is one image of COCO's form."""
    from kdplugin.datasets.digit_scenes import make_digit_scenes

    make_digit_scenes(tmp_path / 'scenes', train=1, val=1, size=64, progress=False)
    data = Config.fromfile(Path(__file__).parents[2] / 'configs/_base_/datasets/digit_scenes_det.py')
    data.val_dataloader.dataset.data_root = f'{tmp_path}/scenes/'
    data.val_evaluator = dict(type='CocoMetric', ann_file=f'{tmp_path}/scenes/annotations/val.json', **metric)
    return data


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({}, None),
        (dict(ann_file=None), 'ground truth is required for evaluation when `ann_file` is not provided'),
        (dict(ann_file='gone.json'), 'FileNotFoundError: gone.json'),
        (dict(proposal_nums=100), "'int' object is not iterable"),
        (dict(format_only=True, outfile_prefix='out'), None),
    ],
)
def test_metrics_see_what_the_student_predicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], says: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    config = detection_config(tmp_path)
    config.val_evaluator.update(changes)
    found, student = Findings(), build(ConfigDict(detector()))
    init_default_scope('mmdet')
    check_validation(found, config, student, True)
    assert [one.where for one in found] == ['val_evaluator'] * (says is not None)
    assert all(str(says) in one.message for one in found)
    assert [path.name for path in tmp_path.iterdir()] == ['scenes']


def test_what_removes_boxes_is_run(tmp_path: Path) -> None:
    """A student without a box above its threshold would never come so far."""
    settings = detector()
    settings['test_cfg']['nms'] = dict(type='nms', iou_thresh=0.6)
    found, student = Findings(), build(ConfigDict(settings))
    init_default_scope('mmdet')
    check_validation(found, detection_config(tmp_path), student, True)
    assert [one.where for one in found] == ['val_dataloader']
    assert "nms() got an unexpected keyword argument 'iou_thresh'" in found[0].message
