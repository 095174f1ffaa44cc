from __future__ import annotations

import torch
from engine_fixtures import build, detection_batch, detector, segmentation_batch, segmentor

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.labels import check_labels


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


def test_masks_of_black_and_white_have_one_class_only() -> None:
    batch, found = segmentation_batch(), Findings()
    for sample in batch['data_samples']:
        labels = sample.gt_sem_seg.data
        labels[:] = 0
        labels[..., :4] = 255
    check_labels(found, build(segmentor(classes=2), initialise=False), batch)
    assert [one.level for one in found] == ['warning']
    assert 'this batch has 0 and 255, which is ignored, so that class 1 is never learnt' in found[0].message
    other = Findings()
    check_labels(other, build(segmentor(classes=3), initialise=False), batch)
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[..., 4:8] = 1
    check_labels(other, build(segmentor(classes=2), initialise=False), batch)
    assert other == []
