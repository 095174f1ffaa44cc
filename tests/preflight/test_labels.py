from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import build, detection_batch, detector, segmentation_batch, segmentor
from engine_runs import run_config
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from kdplugin.distill.probe import synthetic_batch
from kdplugin.preflight import labels
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.labels import check_labels, check_validation


def test_labels_of_pixels_are_classes_of_the_head() -> None:
    found, batch = Findings(), segmentation_batch()
    check_labels(found, build(segmentor(), initialise=False), batch)
    assert found == []
    check_labels(found, build(segmentor(classes=4), initialise=False), batch)
    assert [(one.level, one.where) for one in found] == [('error', 'train_dataloader.dataset')]
    assert 'labels from 0 to 3, or 255, but got [4, 5,' in found[0].message
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:] = 255
    empty = Findings()
    check_labels(empty, build(segmentor(), initialise=False), batch)
    assert [one.level for one in empty] == ['warning']


def test_labels_of_boxes_are_classes_of_the_head() -> None:
    found, batch = Findings(), detection_batch()
    check_labels(found, build(detector(), initialise=False), batch)
    assert found == []
    check_labels(found, build(detector(classes=5), initialise=False), batch)
    assert 'labels from 0 to 4 but got 7' in found[0].message
    for sample in batch['data_samples']:
        sample.gt_instances = sample.gt_instances[torch.zeros(2, dtype=torch.bool)]
    none = Findings()
    check_labels(none, build(detector(), initialise=False), batch)
    assert none == []


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
    monkeypatch.setattr(labels, '_first', lambda settings: dict(inputs=inputs, data_samples=samples))
    found, student = Findings(), Sized(only)
    check_validation(found, Config(dict(val_dataloader=dict(dataset=dict()))), student, True)
    assert student.seen == seen
    assert [one.message for one in found] == (
        ['Expected the student to predict but got ValueError: no 640. Correct this part of the config.']
        if only == 641
        else []
    )
