from __future__ import annotations

from pathlib import Path

import torch
from engine_fixtures import build, detection_batch, detector, segmentation_batch, segmentor
from engine_runs import run_config
from mmengine.config import Config
from mmengine.registry import init_default_scope

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
