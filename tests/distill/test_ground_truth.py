"""Labels and boxes come out of mmseg's and mmdet's own data samples."""

from __future__ import annotations

import torch
from engine_fixtures import build, detection_batch, detector, segmentation_batch, segmentor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData, PixelData

from kdplugin.distill.ground_truth import first_tensor, is_detector, object_boxes, segmentation_labels, truth_of


def test_a_batch_of_mmseg_has_labels_and_no_boxes() -> None:
    batch = segmentation_batch()
    truth = truth_of((), batch)
    assert truth['labels'].shape == (2, 48, 48)
    assert torch.equal(truth['labels'][1], batch['data_samples'][1].gt_sem_seg.data[0])
    assert (truth['boxes'], truth['image_size'], truth['data_samples']) == (None, (48, 48), batch['data_samples'])


def test_a_batch_of_mmdet_has_boxes_also_as_box_objects() -> None:
    batch = detection_batch(96)
    samples = batch['data_samples']
    expected = [sample.gt_instances.bboxes.clone() for sample in samples]
    samples[1].gt_instances.bboxes = HorizontalBoxes(expected[1])
    truth = truth_of((batch['inputs'], samples), {})
    assert [type(boxes) for boxes in truth['boxes']] == [torch.Tensor, torch.Tensor]
    assert all(torch.equal(*both) for both in zip(truth['boxes'], expected, strict=True))
    assert (truth['labels'], truth['image_size']) == (None, (96, 96))


def test_segmentations_of_mmdet_are_labels_too() -> None:
    sample = DetDataSample()
    sample.gt_sem_seg = PixelData(sem_seg=torch.full((1, 4, 6), 3))
    assert torch.equal(segmentation_labels([sample]), torch.full((1, 4, 6), 3))


def test_samples_without_truth_have_none() -> None:
    assert segmentation_labels(None) is object_boxes(None) is None
    assert segmentation_labels([DetDataSample()]) is object_boxes([DetDataSample()]) is None
    only_masks = DetDataSample(gt_instances=InstanceData(labels=torch.zeros(2)))
    assert object_boxes([only_masks]) is None


def test_images_are_found_by_position_or_name() -> None:
    image = torch.zeros(1)
    assert first_tensor((image,), {}) is first_tensor((), dict(data_samples=None, inputs=image)) is image


def test_detectors_are_told_by_their_family() -> None:
    assert is_detector(build(detector(), initialise=False))
    assert not is_detector(build(segmentor(), initialise=False))
