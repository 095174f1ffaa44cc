"""A short distilled training on small digit scenes, for measurements of what happens when it is killed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any
from unittest import mock

import mmseg.datasets
import mmseg.evaluation
import mmseg.models  # noqa: F401 - imported once, before processes are forked
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import Runner

from kdplugin import launch
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.hooks.safe_checkpoint_hook import SafeCheckpointHook

CLASSES = 11
ITERATIONS, SAVE_EVERY, VALIDATE_EVERY = 8, 2, 4
STARTING, TRAINING, VALIDATION, SAVING, DONE = range(5)
PHASES = ('starting', 'training', 'validation', 'saving', 'done')


def segmentor(width: int, dropout: float, norm: str = 'BN') -> dict[str, Any]:
    """Return mmseg's FCN on a ResNet-18 of a few channels."""
    norm_cfg = dict(type=norm, **(dict(num_groups=4) if norm == 'GN' else {}))
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True,
            pad_val=0, seg_pad_val=255, size=(64, 64),
        ),
        backbone=dict(
            type='ResNet', depth=18, base_channels=width, stem_channels=width, norm_cfg=norm_cfg, style='pytorch'
        ),
        decode_head=dict(
            type='FCNHead', in_channels=width * 8, in_index=3, channels=8, num_convs=1, num_classes=CLASSES,
            dropout_ratio=dropout, concat_input=False, norm_cfg=norm_cfg, align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
        ),
        train_cfg=dict(), test_cfg=dict(mode='whole'),
    )  # fmt: skip


def prepare_files(folder: Path, norm: str = 'BN') -> None:
    """Write scenes, and a teacher's checkpoint with weights of its own."""
    make_digit_scenes(folder / 'digits', train=8, val=4, size=64, progress=False)
    init_default_scope('mmseg')
    torch.manual_seed(1)
    teacher = MODELS.build(segmentor(16, 0.0, norm))
    teacher.init_weights()
    torch.save({'state_dict': teacher.state_dict()}, folder / 'teacher.pth')


def loader(folder: Path, split: str, augment: bool, batch: int) -> dict[str, Any]:
    """Return the config of a data loader of one split."""
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    random = [dict(type='RandomFlip', prob=0.5), dict(type='PhotoMetricDistortion')] if augment else []
    sampler = dict(type='InfiniteSampler' if split == 'train' else 'DefaultSampler', shuffle=split == 'train')
    return dict(
        batch_size=batch, num_workers=0, persistent_workers=False, sampler=sampler,
        dataset=dict(
            type='BaseSegDataset', data_root=str(folder / 'digits'), img_suffix='.png', seg_map_suffix='.png',
            data_prefix=dict(img_path=f'{split}/images', seg_map_path=f'{split}/masks'),
            metainfo=dict(classes=tuple(map(str, range(CLASSES))), palette=[[n, n, n] for n in range(CLASSES)]),
            pipeline=[*load, *random, dict(type='PackSegInputs')],
        ),
    )  # fmt: skip


def run_config(
    folder: Path, work_dir: Path, *, iterations: int = ITERATIONS, batch: int = 2, norm: str = 'BN',
    dropout: float = 0.1, augment: bool = True, validate: bool = True,
) -> Config:  # fmt: skip
    """Return the whole config: adapters, dropout, augmentation, momentum, EMA, validation.

    Args:
        folder: of ``prepare_files``.
    """
    model = dict(
        type='kdplugin.Distiller', student=segmentor(8, dropout, norm),
        teacher=dict(model=segmentor(16, 0.0, norm), checkpoint=str(folder / 'teacher.pth')),
        pairs=dict(
            feature=dict(tap='backbone', loss=dict(type='kdplugin.CosineLoss'), weight=0.5),
            logits=dict(tap='decode_head.conv_seg', loss=dict(type='kdplugin.KLDivergenceLoss', temperature=2.0)),
        ),
    )  # fmt: skip
    validation = dict(
        val_dataloader=loader(folder, 'val', False, 2), val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
    )  # fmt: skip
    return Config(dict(
        default_scope='mmseg', experiment_name=f'crash-{os.getpid()}', work_dir=str(work_dir), model=model,
        randomness=dict(seed=3), resume=False, load_from=None, log_level='ERROR',
        custom_hooks=[dict(type='EMAHook', momentum=0.1)] if validate else [],
        train_dataloader=loader(folder, 'train', augment, batch),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=VALIDATE_EVERY),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)),
        param_scheduler=[dict(type='PolyLR', eta_min=1e-3, power=0.9, begin=0, end=40, by_epoch=False)],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            checkpoint=dict(
                type='CheckpointHook', by_epoch=False, interval=SAVE_EVERY, max_keep_ckpts=2,
                save_best='mIoU' if validate else None,
            ),
        ),
        env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
        **(validation if validate else {}),
    ))  # fmt: skip


@HOOKS.register_module()
class PhaseHook(Hook):
    """Keep a note of what the process does in memory that another process reads."""

    priority = 'VERY_HIGH'
    note: MutableSequence[int] = [STARTING] + [0] * len(PHASES)
    """The phase, then how often each was entered."""

    @classmethod
    def enter(cls, phase: int) -> None:
        cls.note[1 + phase] += 1
        cls.note[0] = phase

    def before_train_iter(self, *args: Any, **kwargs: Any) -> None:
        self.enter(TRAINING)

    def before_val(self, *args: Any, **kwargs: Any) -> None:
        self.enter(VALIDATION)


@HOOKS.register_module()
class LossNote(Hook):
    """Append the losses of each step to ``rankN.jsonl``; die as if killed at an iteration, on one rank.

    Args:
        rank: that dies.
        iteration: before which.
    """

    def __init__(self, rank: int = -1, iteration: int = -1) -> None:
        self.dies = (rank, iteration)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if self.dies == (runner.rank, runner.iter):
            Path(runner.work_dir, 'died').write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        losses = {name: float(value) for name, value in outputs.items() if 'loss' in name}
        with Path(runner.work_dir, f'rank{runner.rank}.jsonl').open('a') as file:
            file.write(json.dumps({'iteration': runner.iter, **losses}) + '\n')


def run(folder: str, work_dir: str, resume: bool, note: MutableSequence[int]) -> None:
    """Train in this process, as tools/train.py would; what costs time there is left out.

    That is the layout of the config in checkpoints, and asking the system for its compilers.
    """
    os.setsid()
    torch.set_num_threads(1)
    log = os.open(f'{work_dir}.log', os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    PhaseHook.note = note
    write = SafeCheckpointHook._write
    best = SafeCheckpointHook._save_best_checkpoint

    def saving(action: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> None:
            before = note[0]
            PhaseHook.enter(SAVING)
            action(*args, **kwargs)
            note[0] = before

        return wrapped

    config = run_config(Path(folder), Path(work_dir))
    config.custom_hooks.append(dict(type='mmengine.PhaseHook'))
    with (
        mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True)),
        mock.patch('mmengine.runner.runner.collect_env', dict),
        mock.patch.object(SafeCheckpointHook, '_write', saving(write)),
        mock.patch.object(SafeCheckpointHook, '_save_best_checkpoint', saving(best)),
    ):
        launch.train(launch.prepare(config, resume='auto' if resume else None))
    PhaseHook.enter(DONE)
