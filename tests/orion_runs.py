"""Whole trainings of a tiny OrionStudent by its teacher, on the shared digit scenes."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import orion_models as orion
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from kdplugin.datasets.digit_drawing import CLASSES
from kdplugin.models.detectors import OrionStudent
from kdplugin.pruning.plan import PruningPlan

_names = itertools.count()
WEIGHTS = dict(features=0.5, attention=0.3, outputs=0.2)
SCHEDULE = [
    dict(kind='constant', start=0.8, end=1, by_epoch=True),
    dict(kind='linear', start=0.7, stop=0.6, by_epoch=True),
]
"""alpha: 0.8 in the first epoch, then from 0.7 to 0.6 in the last."""


@HOOKS.register_module()
class WatchTask(Hook):
    """Keep the plain student's loss on every training batch, before the step, from a forward pass of its own."""

    priority = 'LOW'

    def __init__(self) -> None:
        self.tasks: dict[int, float] = {}

    @torch.no_grad()
    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        model = runner.model
        data = model.data_preprocessor(copy.deepcopy(data_batch), True)
        losses = OrionStudent.forward(model, **data, mode='loss')
        self.tasks[runner.iter] = float(model.parse_losses(losses)[0])


def plan_for(folder: Path) -> str:
    """Write the plan that keeps two of four heads and some of the neurons; return its path."""
    neurons = (tuple(range(0, 85, 2)), tuple(range(40)))
    plan = PruningPlan(((1, 3), (0, 2)), neurons, num_heads=orion.HEADS, hidden=85, head_dim=8)
    plan.write(folder / 'plan.json')
    return str(folder / 'plan.json')


def kd_config(shared: Path, folder: Path, teacher: str, *, epochs: int = 4, **more: Any) -> Config:
    """Return the recipe: the pruned backbone trained by features, attention and outputs, alpha scheduled."""
    plan = plan_for(folder)
    backbone = {key: value for key, value in orion.backbone().items() if key != 'num_heads'}
    student = orion.student(teacher, backbone=dict(backbone, type='kdplugin.EVAViTStudent', plan=plan))
    features = dict(
        tap='backbone.blocks.1', student_layout='NHWC', teacher_layout='NHWC', loss=dict(type='kdplugin.CosineLoss')
    )
    kl = dict(type='kdplugin.KLDivergenceLoss', temperature=3.0, sigmoid=True)
    model = dict(
        type='kdplugin.Distiller', student=student, teacher=dict(model=orion.teacher(), checkpoint=teacher),
        alpha=SCHEDULE,
        pairs=dict(
            features=dict(features, weight=WEIGHTS['features']),
            attention=dict(type='kdplugin.AttentionKD', blocks=[0, 1], plan=plan, weight=WEIGHTS['attention']),
            outputs=dict(tap='bbox_head.gfl_cls', loss=kl, weight=WEIGHTS['outputs']),
        ),
    )  # fmt: skip
    pipeline = [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ]  # fmt: skip
    dataset = dict(
        type='CocoDataset', data_root=str(shared / 'digits'), ann_file='annotations/train.json',
        data_prefix=dict(img='train/images'), metainfo=dict(classes=CLASSES), pipeline=pipeline,
    )  # fmt: skip
    hook = dict(type='kdplugin.WeightProjectionHook', source=teacher, target='backbone', plan=plan, min_coverage=1.0)
    name = f'orion-run-{next(_names)}'
    config = dict(
        default_scope='mmdet', experiment_name=name, work_dir=str(folder / 'run'), model=model, randomness=dict(seed=3),
        train_dataloader=dict(
            batch_size=2, num_workers=0, persistent_workers=False, sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dataset,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), resume=False, load_from=None,
        optim_wrapper=dict(
            type='OptimWrapper', constructor='kdplugin.TrainedParameters',
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01), clip_grad=dict(max_norm=10),
        ),
        default_hooks=dict(
            timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1),
            sampler_seed=dict(type='DistSamplerSeedHook'),
            checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=-1),
        ),
        custom_hooks=[hook], env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork')),
        visualizer=dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name=name),
        log_processor=dict(by_epoch=True, window_size=1), log_level='WARNING',
    )  # fmt: skip
    return Config({**config, **more})
