from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import build, detector, segmentor
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from kdplugin.distill.probe import synthetic_batch
from kdplugin.preflight.shrinking import MOST, MULTIPLE, shrunk


def detection_batch(height: int, width: int) -> dict[str, Any]:
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks, PolygonMasks

    planes = np.zeros((1, height, width), dtype=np.uint8)
    planes[:, : height // 2, : width // 4] = 1
    polygon = [np.array([0, 0, width / 4, 0, width / 4, height / 2], dtype=np.float32)]
    samples = []
    for boxes, masks in (
        (torch.tensor([[0.0, 0.0, width / 4, height / 2]]), BitmapMasks(planes, height, width)),
        (HorizontalBoxes(torch.tensor([[0.0, 0.0, width / 4, height / 2]])), PolygonMasks([polygon], height, width)),
    ):
        sample = DetDataSample(
            metainfo=dict(img_shape=(height, width, 3), batch_input_shape=(height, width), scale_factor=(0.5, 0.5))
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(1, dtype=torch.long), masks=masks)
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
        samples.append(sample)
    return dict(inputs=torch.rand(2, 3, height, width), data_samples=samples)


def test_boxes_masks_and_sizes_shrink_with_the_images() -> None:
    data = detection_batch(1024, 1344)
    small = shrunk(data, most=512 * 672)
    assert small['inputs'].shape == (2, 3, 512, 672)
    assert float(small['inputs'].mean()) == pytest.approx(float(data['inputs'].mean()), abs=1e-3)
    for sample in small['data_samples']:
        assert sample.img_shape == (512, 672, 3)
        assert sample.batch_input_shape == (512, 672)
        assert sample.scale_factor == (0.25, 0.25)
        boxes = sample.gt_instances.bboxes
        boxes = boxes if isinstance(boxes, torch.Tensor) else boxes.tensor
        assert boxes.tolist() == [[0, 0, 168, 256]]
        assert sample.gt_instances.labels.tolist() == [0]
        assert len(sample.ignored_instances) == 0
        masks = sample.gt_instances.masks
        assert (masks.height, masks.width) == (512, 672)
    bitmap, polygon = (sample.gt_instances.masks for sample in small['data_samples'])
    assert bitmap.areas.tolist() == [168 * 256]
    assert polygon.areas.tolist() == [168 * 256 / 2]


def test_the_batch_itself_stays_as_it_is() -> None:
    data = detection_batch(1024, 1344)
    shrunk(data)
    assert data['inputs'].shape == (2, 3, 1024, 1344)
    for sample in data['data_samples']:
        assert sample.img_shape == (1024, 1344, 3)
        boxes = sample.gt_instances.bboxes
        boxes = boxes if isinstance(boxes, torch.Tensor) else boxes.tensor
        assert boxes.tolist() == [[0, 0, 336, 512]]
        assert sample.gt_instances.masks.height == 1024


def test_label_maps_keep_their_values() -> None:
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, 19, (1, 64, 128)).repeat_interleave(16, 1).repeat_interleave(16, 2)
    sample = SegDataSample(metainfo=dict(img_shape=(1024, 2048), pad_shape=(1024, 2048), padding_size=[8, 0, 16, 0]))
    sample.gt_sem_seg = PixelData(data=labels, edges=labels == 3)
    small = shrunk(dict(inputs=torch.zeros(1, 3, 1024, 2048), data_samples=[sample]), most=256 * 512)
    got = small['data_samples'][0].gt_sem_seg.data
    assert got.dtype == torch.long
    assert torch.equal(got, labels[:, ::4, ::4])
    assert torch.equal(small['data_samples'][0].gt_sem_seg.edges, got == 3)
    assert small['data_samples'][0].pad_shape == (256, 512)
    assert small['data_samples'][0].padding_size == [2, 0, 4, 0]


@pytest.mark.parametrize('side', [801, 999, 1333])
def test_sides_become_multiples_and_boxes_stretch_with_them(side: int) -> None:
    small = shrunk(detection_batch(side, side))
    assert small['inputs'].shape[-1] % MULTIPLE == 0
    assert 0 <= small['inputs'].shape[-1] - MOST**0.5 < MULTIPLE
    share = small['inputs'].shape[-1] / side
    assert small['data_samples'][0].gt_instances.bboxes[0].tolist() == pytest.approx(
        [0, 0, side / 4 * share, side / 2 * share]
    )


def test_small_and_unknown_batches_stay() -> None:
    small = detection_batch(64, 64)
    assert shrunk(small) is small
    raw = [torch.zeros(1)]
    assert shrunk(raw) is raw
    without = dict(inputs=torch.zeros(1, 3, 2048, 2048), data_samples=[])
    assert shrunk(without) is without
    listed = dict(inputs=[torch.zeros(3, 2048, 2048)], data_samples=[BaseDataElement()])
    assert shrunk(listed) is listed
    strange = detection_batch(1024, 1024)
    strange['data_samples'][0].gt_instances.keypoints = torch.zeros(1, 17, 2)
    assert shrunk(strange) is strange
    field = detection_batch(1024, 1024)
    field['data_samples'][1].gt_depth_map = PixelData(data=torch.zeros(1, 1024, 1024))
    assert shrunk(field) is field


@pytest.mark.parametrize('settings', [segmentor(), detector()], ids=['segmentor', 'detector'])
def test_a_student_learns_from_what_is_made_small(settings: dict) -> None:
    student = build(settings)
    inputs, samples = synthetic_batch(student, (640, 640), 2)
    small = shrunk(dict(inputs=inputs, data_samples=samples))
    assert small['inputs'].shape[-1] < 640
    total, _ = student.parse_losses(student(**small, mode='loss'))
    assert torch.isfinite(total)
