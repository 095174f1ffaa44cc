"""Configs and data small enough to build, train and break within seconds."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import kdplugin.registry  # noqa: F401 - makes types with the prefix 'kdplugin.' known
from kdplugin.datasets.digit_drawing import SceneSettings
from kdplugin.datasets.digit_scenes import make_digit_scenes

CLASSES = ('background', 'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
PREPROCESSOR = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=(64, 64),
    pad_val=0,
    seg_pad_val=255,
)


def segmentor(widen: float = 0.25, classes: int = len(CLASSES), **changes: Any) -> dict[str, Any]:
    """An mmseg EncoderDecoder of MobileNetV2 and one convolution; ``changes`` replace keys of the model."""
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=PREPROCESSOR,
        backbone=dict(type='MobileNetV2', widen_factor=widen, out_indices=(2, 4), strides=(1, 2, 2, 1, 1, 1, 1)),
        decode_head=dict(
            type='FCNHead',
            in_channels=int(96 * widen),
            in_index=1,
            channels=8,
            num_convs=1,
            concat_input=False,
            num_classes=classes,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    return {**model, **changes}


def pairs() -> dict[str, Any]:
    """Logits and one feature map."""
    return dict(
        logits=dict(
            tap='decode_head.conv_seg', loss=dict(type='kdplugin.KLDivergenceLoss', temperature=4.0), weight=0.5
        ),
        mid=dict(tap='backbone.layer3', loss=dict(type='kdplugin.CosineLoss'), weight=0.1),
    )


def build(model: dict[str, Any]) -> nn.Module:
    init_default_scope('mmseg')
    return MODELS.build(model)


def write_teacher(folder: Path, **changes: Any) -> dict[str, Any]:
    """Save random weights for a wider model and return the ``teacher`` of a config."""
    torch.manual_seed(1)
    model = segmentor(widen=0.5, **changes)
    torch.save({'state_dict': build(model).state_dict()}, folder / 'teacher.pth')
    return dict(model=model, checkpoint=str(folder / 'teacher.pth'))


def distiller(teacher: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**dict(type='kdplugin.Distiller', student=segmentor(), teacher=teacher, pairs=pairs()), **changes}


def draw_data(folder: Path) -> Path:
    """Four training and two validation scenes of 64x64 pixels."""
    settings = SceneSettings(digits=(1, 2), digit_size=(20.0, 30.0))
    make_digit_scenes(folder / 'scenes', train=4, val=2, size=64, settings=settings, progress=False)
    return folder / 'scenes'


def dataloader(data: Path, split: str, **changes: Any) -> dict[str, Any]:
    """A loader of ``draw_data``; ``changes`` replace keys of its dataset."""
    steps = [dict(type=name) for name in ('LoadImageFromFile', 'LoadAnnotations', 'PackSegInputs')]
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(data),
        data_prefix=dict(img_path=f'{split}/images', seg_map_path=f'{split}/masks'),
        metainfo=dict(classes=CLASSES, palette=[[n, n, n] for n in range(len(CLASSES))]),
        img_suffix='.png',
        seg_map_suffix='.png',
        reduce_zero_label=False,
        pipeline=steps,
    )
    sampler = dict(type='InfiniteSampler' if split == 'train' else 'DefaultSampler', shuffle=split == 'train')
    return dict(batch_size=2, num_workers=0, sampler=sampler, dataset={**dataset, **changes})


def recipe(folder: Path, data: Path, model: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole training config of two iterations; ``changes`` replace top-level keys."""
    return {
        **dict(
            default_scope='mmseg',
            work_dir=str(folder / 'work'),
            log_level='ERROR',
            model=model,
            train_dataloader=dataloader(data, 'train'),
            val_dataloader=dataloader(data, 'val'),
            val_evaluator=dict(type='IoUMetric'),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
        ),
        **changes,
    }


def write_config(path: Path, config: dict[str, Any]) -> Path:
    """Write a config file and return its path."""
    path.write_text(''.join(f'{key} = {pprint.pformat(value)}\n' for key, value in config.items()))
    return path
