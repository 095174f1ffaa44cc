"""The two dataset configs, read by mmseg's and mmdet's own classes on a tiny folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from kdplugin.datasets.digit_drawing import CLASSES
from kdplugin.datasets.digit_scenes import make_digit_scenes

CONFIGS = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    make_digit_scenes(out, train=20, val=10, size=96, progress=False)
    return out


def inherited(tmp_path: Path, root: Path, task: str) -> Config:
    """A config that inherits the base, as a user's does, with its data folder moved."""
    config = tmp_path / 'mine.py'
    config.write_text(f"_base_ = ['{CONFIGS / f'digit_scenes_{task}.py'}']\n")
    parsed = Config.fromfile(config)
    for split in ('train', 'val', 'test'):
        parsed[f'{split}_dataloader'].dataset.data_root = str(root)
        if task == 'det' and split != 'train':
            parsed[f'{split}_evaluator'].ann_file = str(root / 'annotations' / 'val.json')
    return parsed


@pytest.fixture
def seg(tmp_path, root):
    pytest.importorskip('mmseg.datasets')
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield inherited(tmp_path, root, 'seg')


@pytest.fixture
def det(tmp_path, root):
    pytest.importorskip('mmdet.datasets')
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield inherited(tmp_path, root, 'det')


def test_seg_labels_are_the_png_values(seg, root):
    loader = Runner.build_dataloader(seg.train_dataloader, seed=0)
    batch = next(iter(loader))
    assert loader.dataset.metainfo['classes'] == ('background', *CLASSES)
    assert (len(loader.dataset), len(batch['inputs'])) == (20, 16)
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        assert image.shape == (3, 96, 96)
        mask = np.array(Image.open(root / 'train' / 'masks' / Path(sample.img_path).name))
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0], mask)
        pixels = np.array(Image.open(sample.img_path))
        np.testing.assert_array_equal(image.numpy()[::-1].transpose(1, 2, 0), pixels)


def test_seg_truth_scores_full_marks(seg):
    loader = Runner.build_dataloader(seg.val_dataloader, seed=0)
    evaluator = Runner.build_evaluator(None, seg.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        for sample in batch['data_samples']:
            truth = sample.gt_sem_seg.data
            sample.pred_sem_seg = PixelData(data=torch.where(truth == 255, 0, truth))
        evaluator.process(data_samples=batch['data_samples'], data_batch=batch)
    assert evaluator.evaluate(10)['mIoU'] == 100


def test_det_boxes_labels_and_masks_are_those_of_the_file(det, root):
    det.train_dataloader.dataset.pipeline[1].with_mask = True
    dataset = Runner.build_dataloader(det.train_dataloader, seed=0).dataset
    file = COCO(root / 'annotations' / 'train.json')
    assert dataset.metainfo['classes'] == CLASSES
    assert len(dataset) == 20
    for item in dataset:
        truth = item['data_samples'].gt_instances
        annotations = file.imgToAnns[item['data_samples'].img_id]
        masks = np.stack([rle.decode(entry['segmentation']) for entry in annotations])
        np.testing.assert_array_equal(truth.masks.masks, masks)
        np.testing.assert_array_equal(truth.labels, [entry['category_id'] - 1 for entry in annotations])
        for box, mask in zip(truth.bboxes.tensor, masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert item['inputs'].shape == (3, 96, 96)


def test_det_truth_scores_full_marks(det):
    loader = Runner.build_dataloader(det.val_dataloader, seed=0)
    evaluator = Runner.build_evaluator(None, det.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        for sample in batch['data_samples']:
            truth = sample.gt_instances
            scores = torch.ones(len(truth.labels))
            sample.pred_instances = InstanceData(bboxes=truth.bboxes, labels=truth.labels, scores=scores)
            assert sample.scale_factor == (1, 1)
        evaluator.process(data_samples=batch['data_samples'], data_batch=batch)
    assert evaluator.evaluate(10)['coco/bbox_mAP'] == 1
