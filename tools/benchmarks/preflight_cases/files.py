"""Small stand-ins for the files that configs name: data sets of a few images, teachers with random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from kdplugin.config_files import parse
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.distill.probe import initialised_copy
from kdplugin.distill.teachers.teacher import build_teacher_model

ROOT = Path(__file__).parents[3]
COCO_SIZE, CITY_SIZE = (96, 128), (512, 1024)
IMAGES = 4

STUDENT = """# A small GFL on the digit scenes: the plain recipe of the student.
_base_ = ['mmdet::_base_/default_runtime.py', './configs/_base_/datasets/digit_scenes_det.py']
model = dict(
    type='GFL',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_size_divisor=32),
    backbone=dict(
        type='ResNet', depth=18, base_channels={width}, stem_channels={width}, out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, style='pytorch'),
    neck=dict(
        type='FPN', in_channels=[{width}, {width} * 2, {width} * 4, {width} * 8], out_channels={neck}, start_level=1,
        add_extra_convs='on_output', num_outs=5),
    bbox_head=dict(
        type='GFLHead', num_classes=10, in_channels={neck}, stacked_convs=1, feat_channels=16,
        norm_cfg=dict(type='GN', num_groups=4),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
            strides=[8, 16, 32, 64, 128]),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0), reg_max=8),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0001))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
randomness = dict(seed=0)
"""
DISTILLED = """# The same, distilled.
_base_ = ['./gfl_student.py']
model = dict(
    _delete_=True,
    type='kdplugin.Distiller',
    student=_base_.model,
    teacher=dict(cfg='gfl_teacher.py', checkpoint='gfl_teacher.pth'),
    pairs=dict(
        neck=dict(tap='neck', loss=dict(type='kdplugin.PKDLoss'), weight=1.0),
        cls=dict(tap='bbox_head.gfl_cls', loss=dict(type='kdplugin.KLDivergenceLoss', temperature=2.0), weight=0.5)))
"""


def make_files(folder: Path) -> None:
    """Fill a folder so that every config of this repository finds the data that it names, from this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'configs').symlink_to(ROOT / 'configs')
    make_digit_scenes(folder / 'data' / 'digit_scenes', train=8, val=4, progress=False)
    make_digit_scenes(folder / 'data' / 'orion_digits', train=8, val=4, size=64, progress=False)
    make_coco(folder / 'data' / 'coco')
    make_real_data(folder / 'work_dirs' / 'real_data' / 'data')
    make_cityscapes(folder / 'data' / 'cityscapes')
    make_voc(folder / 'data' / 'VOCdevkit' / 'VOC2012')
    (folder / 'gfl_student.py').write_text(STUDENT.format(width=8, neck=16))
    (folder / 'gfl_teacher.py').write_text(STUDENT.format(width=16, neck=24))
    (folder / 'gfl_kd.py').write_text(DISTILLED)


def save_teacher(config: str, file: Path, seed: int = 1) -> None:
    """Save random weights for the model of a config file, as its checkpoint."""
    init_default_scope(parse(config).get('default_scope', 'mmdet'))
    torch.manual_seed(seed)
    model = initialised_copy(build_teacher_model(dict(cfg=config)))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.empty_like(value).uniform_(-0.02, 0.02))
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)


def _image(size: tuple[int, int], seed: int) -> Image.Image:
    generator = np.random.default_rng(seed)
    return Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8))


def make_coco(folder: Path) -> None:
    """Write COCO's 80 categories with a few images, boxes and masks."""
    from mmdet.datasets import CocoDataset

    for split in ('train', 'val'):
        file = folder / 'annotations' / f'instances_{split}2017.json'
        write_coco(file, folder / f'{split}2017', CocoDataset.METAINFO['classes'], f'{split}{{:012d}}.jpg')


def make_real_data(folder: Path) -> None:
    """Write a few images in the two layouts that tools/benchmarks/real_data.py writes."""
    cells = parse('configs/real_data/bccd.py').metainfo.classes
    for split in ('train', 'val'):
        write_coco(folder / 'bccd' / f'{split}.json', folder / 'bccd' / 'images', cells, f'{split}_{{}}.jpg')
        for kind in ('images', 'masks'):
            (folder / 'dubai' / split / kind).mkdir(parents=True)
        for number in range(IMAGES):
            _image((256, 256), number).save(folder / 'dubai' / split / 'images' / f'{number}.png')
            labels = np.random.default_rng(number).integers(0, 5, (256, 256), dtype=np.uint8)
            Image.fromarray(labels).save(folder / 'dubai' / split / 'masks' / f'{number}.png')


def write_coco(file: Path, folder: Path, classes: Sequence[str], name: str) -> None:
    """Write images, named by their number, with two objects each, and the annotations in COCO's format."""
    categories = [dict(id=n + 1, name=one) for n, one in enumerate(classes)]
    height, width = COCO_SIZE
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for parent in (folder, file.parent):
        parent.mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        _image(COCO_SIZE, number).save(folder / name.format(number))
        images.append(dict(id=number, file_name=name.format(number), height=height, width=width))
        for part in range(2):
            x, y, w, h = 10 + 40 * part, 12, 48, 56
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=number, category_id=1 + (number + part) % len(classes), iscrowd=0,
                    bbox=[x, y, w, h], area=w * h, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                )
            )  # fmt: skip
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def make_cityscapes(folder: Path) -> None:
    """Write a few street scenes in the layout of Cityscapes."""
    for split in ('train', 'val'):
        for number in range(2):
            for kind, suffix in (('leftImg8bit', '_leftImg8bit.png'), ('gtFine', '_gtFine_labelTrainIds.png')):
                path = folder / kind / split / 'town' / f'town_{number:06d}{suffix}'
                path.parent.mkdir(parents=True, exist_ok=True)
                if kind == 'gtFine':
                    labels = np.random.default_rng(number).integers(0, 19, CITY_SIZE, dtype=np.uint8)
                    Image.fromarray(labels).save(path)
                else:
                    _image(CITY_SIZE, number).save(path)


def make_voc(folder: Path) -> None:
    """Write a few images in the layout of PASCAL VOC, with the augmented split."""
    lists = folder / 'ImageSets' / 'Segmentation'
    for path in (lists, folder / 'JPEGImages', folder / 'SegmentationClass', folder / 'SegmentationClassAug'):
        path.mkdir(parents=True, exist_ok=True)
    names = [f'2007_{number:06d}' for number in range(IMAGES)]
    for number, name in enumerate(names):
        _image((256, 256), number).save(folder / 'JPEGImages' / f'{name}.jpg')
        labels = Image.fromarray(np.random.default_rng(number).integers(0, 21, (256, 256), dtype=np.uint8))
        for kind in ('SegmentationClass', 'SegmentationClassAug'):
            labels.save(folder / kind / f'{name}.png')
    for split in ('train', 'val', 'trainval', 'aug'):
        (lists / f'{split}.txt').write_text('\n'.join(names) + '\n')
