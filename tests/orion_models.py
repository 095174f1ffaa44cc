"""A tiny ORION: detectors with an EVA-ViT of two blocks, their weights, and a checkpoint in ORION's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from engine_fixtures import build, save_weights
from mmengine.config import ConfigDict

PREPROCESSOR = dict(
    type='DetDataPreprocessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True, pad_size_divisor=16
)
HEADS = 4


def backbone(heads: int = HEADS, **changes: Any) -> dict[str, Any]:
    """Return an EVA-ViT of two blocks, the first in windows, with heads of width 8."""
    settings = dict(
        type='kdplugin.EVAViT', img_size=128, patch_size=16, window_size=4, embed_dim=32, depth=2, head_dim=8,
        window_block_indexes=(0,), drop_path_rate=0.0, pretrain_img_size=64, pt_hw_seq_len=4,
    )  # fmt: skip
    return dict(settings, num_heads=heads, **changes)


def neck() -> dict[str, Any]:
    """Return a pyramid of one level with BatchNorm, whose statistics move where it is not frozen."""
    return dict(
        type='kdplugin.SimpleFeaturePyramid', in_channels=32, out_channels=16, scales=(1,), norm_cfg=dict(type='BN')
    )


def head() -> dict[str, Any]:
    """Return GFL's head on one level, with BatchNorm."""
    return dict(
        type='GFLHead', num_classes=10, in_channels=16, feat_channels=16, stacked_convs=1, norm_cfg=dict(type='BN'),
        anchor_generator=dict(
            type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[16]
        ),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0), reg_max=8,
    )  # fmt: skip


TRAIN = dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False)
TEST = ConfigDict(nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20)


def teacher() -> dict[str, Any]:
    """Return mmdet's GFL with this backbone, neck and head."""
    return dict(
        type='GFL', _scope_='mmdet', data_preprocessor=PREPROCESSOR, backbone=backbone(), neck=neck(), bbox_head=head(),
        train_cfg=TRAIN, test_cfg=TEST,
    )  # fmt: skip


def student(checkpoint: str | None, count: int = HEADS, **changes: Any) -> dict[str, Any]:
    """Return an OrionStudent with the teacher's neck and head."""
    settings: dict[str, Any] = dict(
        type='kdplugin.OrionStudent', _scope_='mmdet', data_preprocessor=PREPROCESSOR, backbone=backbone(count),
        neck=neck(), heads=dict(bbox_head=dict(head(), train_cfg=TRAIN, test_cfg=TEST)), checkpoint=checkpoint,
    )  # fmt: skip
    return {**settings, **changes}


def save_teacher(folder: Path) -> str:
    """Save the teacher with weights and statistics of its own; return the path."""
    return save_weights(teacher(), folder / 'teacher.pth', seed=2)


def save_orion(folder: Path) -> str:
    """Save the same weights as ORION's file has them: ``img_backbone.*``, and parts that a student does not build."""
    weights = torch.load(save_teacher(folder), weights_only=True)['state_dict']
    renamed = {key.replace('backbone.', 'img_backbone.', 1): value for key, value in weights.items()}
    others = {'map_head.query.weight': torch.ones(6, 4), 'lm_head.lora_A': torch.ones(2, 3), 'query_pos': torch.ones(5)}
    path = folder / 'Orion.pth'
    torch.save({'meta': {}, 'state_dict': {**renamed, **others}}, path)
    return str(path)


ORION = dict(sources=dict(backbone='img_backbone'), ignore_prefixes=['map_head', 'lm_head', 'query_pos'])


def teacher_part(**changes: Any) -> dict[str, Any]:
    """Return the config of a whole teacher read from ``save_orion``'s file."""
    return student(None, frozen=(), **{**ORION, **changes})


__all__ = ['ORION', 'backbone', 'build', 'head', 'neck', 'save_orion', 'save_teacher', 'student', 'teacher']
