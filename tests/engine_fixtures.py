"""Tiny real models, data and runs on which the engine's contracts are proven.

Everything is mmseg's or mmdet's own: a ResNet-18 of 8 (student) or 16 (teacher) base channels on 64x64 scenes.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import random
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS, TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

from kdplugin import launch
from kdplugin.datasets.digit_scenes import make_digit_scenes

torch.set_num_threads(1)

CLASSES = 11
COSINE = dict(type='kdplugin.CosineLoss')
KL = dict(type='kdplugin.KLDivergenceLoss', temperature=2.0)
_names = itertools.count()


def resnet(width: int, norm: str = 'BN', **changes: Any) -> dict[str, Any]:
    """Return a ResNet-18 with outputs of width, 2, 4 and 8 times width."""
    settings = dict(type='ResNet', depth=18, base_channels=width, norm_cfg=dict(type=norm), norm_eval=False)
    return dict(settings, style='pytorch', **changes)


def segmentor(
    width: int = 8, *, classes: int = CLASSES, norm: str = 'BN', dropout: float = 0.1, auxiliary: bool = False
) -> dict[str, Any]:
    """Return mmseg's FCN on a ResNet-18."""

    def head(level: int) -> dict[str, Any]:
        return dict(
            type='FCNHead', in_channels=width << level, in_index=level, channels=8, num_convs=1, num_classes=classes,
            dropout_ratio=dropout, concat_input=False, norm_cfg=dict(type=norm), align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
        )  # fmt: skip

    return dict(
        type='EncoderDecoder',
        _scope_='mmseg',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True,
            pad_val=0, seg_pad_val=255, size=(48, 48),
        ),
        backbone=resnet(width, norm),
        decode_head=head(3),
        auxiliary_head=head(2) if auxiliary else None,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip


def detector(width: int = 8, neck: int = 16, classes: int = 10) -> dict[str, Any]:
    """Return mmdet's GFL on a ResNet-18 and a feature pyramid."""
    return dict(
        type='GFL',
        _scope_='mmdet',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=resnet(width),
        neck=dict(
            type='FPN', in_channels=[width << level for level in range(4)], out_channels=neck, start_level=1,
            add_extra_convs='on_output', num_outs=5,
        ),
        bbox_head=dict(
            type='GFLHead', num_classes=classes, in_channels=neck, stacked_convs=1, feat_channels=16,
            norm_cfg=dict(type='GN', num_groups=4),
            anchor_generator=dict(
                type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
                strides=[8, 16, 32, 64, 128],
            ),
            loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
            loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0), reg_max=8,
        ),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(
            nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20
        ),
    )  # fmt: skip


def build(config: dict[str, Any], seed: int = 0, initialise: bool = True) -> nn.Module:
    """Build a model config from a seed, as a Runner would."""
    import kdplugin.registry  # noqa: F401

    init_default_scope('mmseg')
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(config))
    if initialise:
        model.init_weights()
    return model


def save_weights(config: dict[str, Any], path: Path, seed: int = 1) -> str:
    """Save a model whose weights and running statistics are all its own; return the path."""
    model = build(config, seed)
    for name, buffer in model.named_buffers():
        if name.endswith('running_mean'):
            buffer.uniform_(-0.1, 0.1)
    torch.save({'state_dict': model.state_dict()}, path)
    return str(path)


@cache
def _shared_folder(base: Path) -> Path:
    folder = base / 'engine'
    make_digit_scenes(folder / 'digits', train=8, val=4, size=64, progress=False)
    save_weights(segmentor(16), folder / 'segmentor.pth')
    save_weights(detector(16, 24), folder / 'detector.pth', seed=2)
    return folder


@pytest.fixture(scope='session')
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with digit scenes, and weights of a wide segmentor and a wide detector to learn from."""
    return _shared_folder(tmp_path_factory.getbasetemp())


def distilled(shared: Path, pairs: dict[str, Any], student: dict[str, Any] | None = None, **more: Any) -> Any:
    """Return the config of a segmentor that learns from the shared one."""
    teacher = dict(model=segmentor(16, dropout=0.5), checkpoint=str(shared / 'segmentor.pth'))
    return dict(type='kdplugin.Distiller', student=student or segmentor(), teacher=teacher, pairs=pairs, **more)


def feature_and_logit_pairs() -> dict[str, Any]:
    """Return pairs of which one needs adapters (four levels) and one does not."""
    return dict(
        feature=dict(tap='backbone', loss=COSINE, weight=0.5), logits=dict(tap='decode_head.conv_seg', loss=KL, weight=2.0)
    )


@TRANSFORMS.register_module()
class PythonBrightness(BaseTransform):
    """Scale an image by a number from Python's own generator, from which some transforms draw."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        results['img'] = (results['img'] * random.uniform(0.7, 1.0)).astype('uint8')  # noqa: S311
        return results


@HOOKS.register_module()
class Recorder(Hook):
    """Keep what every training step returned and every validation measured, exactly.

    Args:
        stop: ``(method of Hook, iteration)`` at which the run dies with ``Stopped``, or by SIGKILL.
    """

    priority = 'NORMAL'

    def __init__(self, stop: tuple[str, int] | None = None, kill: bool = False) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.validations: dict[int, dict[str, float]] = {}
        self.stop, self.kill = stop, kill

    def _maybe_stop(self, runner: Runner, method: str) -> None:
        if self.stop and tuple(self.stop) == (method, runner.iter):
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Stopped

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        self._maybe_stop(runner, 'before_train_iter')

    def before_val(self, runner: Runner) -> None:
        self._maybe_stop(runner, 'before_val')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self.steps[runner.iter] = {name: torch.as_tensor(value).item() for name, value in (outputs or {}).items()}

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.validations[runner.iter] = dict(metrics or {})


class Stopped(Exception):
    """The run died."""


def run_config(
    shared: Path,
    work_dir: Path,
    model: dict[str, Any],
    *,
    iters: int = 4,
    epochs: int | None = None,
    save_every: int = 2,
    validate_every: int | None = None,
    accumulate: int = 1,
    ema: bool = False,
    hooks: tuple[dict[str, Any], ...] = (),
    **more: Any,
) -> Config:
    """Return a whole mmseg recipe on the shared digit scenes, with every source of random numbers in use."""

    def loader(split: str, pipeline: list[dict[str, Any]], sampler: str) -> dict[str, Any]:
        return dict(
            batch_size=2, num_workers=0, persistent_workers=False, sampler=dict(type=sampler, shuffle=split == 'train'),
            dataset=dict(
                type='BaseSegDataset', data_root=str(shared / 'digits'), img_suffix='.png', seg_map_suffix='.png',
                data_prefix=dict(img_path=f'{split}/images', seg_map_path=f'{split}/masks'),
                metainfo=dict(classes=tuple(map(str, range(CLASSES))), palette=[[n, n, n] for n in range(CLASSES)]),
                pipeline=pipeline,
            ),
        )  # fmt: skip

    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
    augment = [
        dict(type='RandomCrop', crop_size=(48, 48)), dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'), dict(type='PythonBrightness'),
    ]  # fmt: skip
    pack = [dict(type='PackSegInputs')]
    by_epoch = epochs is not None
    train = dict(by_epoch=True, max_epochs=epochs) if by_epoch else dict(type='IterBasedTrainLoop', max_iters=iters)
    custom = [dict(type='EMAHook', momentum=0.1)] if ema else []
    name = f'run-{next(_names)}'
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=1e-4))
    config = dict(
        default_scope='mmseg', experiment_name=name, work_dir=str(work_dir), model=model,
        randomness=dict(seed=3), custom_hooks=[*custom, *hooks], resume=False, load_from=None,
        train_dataloader=loader('train', [*load, *augment, *pack], 'DefaultSampler' if by_epoch else 'InfiniteSampler'),
        train_cfg=dict(train, **({'val_interval': validate_every} if validate_every else {})),
        optim_wrapper=dict(wrapper, accumulative_counts=accumulate),
        param_scheduler=[dict(type='PolyLR', eta_min=1e-3, power=0.9, begin=0, end=20, by_epoch=False)],
        default_hooks=dict(
            timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            param_scheduler=dict(type='ParamSchedulerHook'), sampler_seed=dict(type='DistSamplerSeedHook'),
            checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=save_every, max_keep_ckpts=1),
        ),
        env_cfg=dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0)),
        visualizer=dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name=name),
        log_processor=dict(by_epoch=by_epoch, window_size=3), log_level='WARNING',
    )  # fmt: skip
    if validate_every:
        config.update(
            val_dataloader=loader('val', [*load, *pack], 'DefaultSampler'), val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        )  # fmt: skip
        config['default_hooks']['checkpoint'].update(save_best='mIoU', rule='greater')
    config.update(more)
    return Config(config)


def start(config: Config, resume: str | None = None, stop: tuple[str, int] | None = None) -> Run:
    """Train a config through ``kdplugin.launch`` until it ends or dies."""
    init_default_scope('mmseg')
    config.custom_hooks = [dict(type='mmengine.Recorder', stop=stop), *config.custom_hooks]
    config = launch.prepare(config, resume=resume)
    runner = launch.build_runner(config)
    recorder = next(hook for hook in runner.hooks if isinstance(hook, Recorder))
    try:
        runner.train()
        return Run(runner, recorder)
    except Stopped:
        return Run(runner, recorder)


class Run:
    """A run that ended or died, and what it recorded."""

    def __init__(self, runner: Runner, recorder: Recorder) -> None:
        self.runner, self.model = runner, runner.model
        self.steps, self.validations = recorder.steps, recorder.validations

    @property
    def folder(self) -> Path:
        return Path(self.runner.work_dir)

    def scalars(self) -> dict[int, dict[str, float]]:
        """Return the training losses of scalars.json by iteration."""
        return read_scalars(Path(self.runner.log_dir) / 'vis_data' / 'scalars.json')


def read_scalars(file: Path) -> dict[int, dict[str, float]]:
    """Return the training losses of a scalars.json by iteration, times left out."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {
        line['step']: {name: value for name, value in line.items() if 'time' not in name}
        for line in lines
        if 'loss' in line
    }


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, adapters included, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def segmentation_batch(size: int = 48, seed: int = 5) -> dict[str, Any]:
    """Return preprocessed random images and labels, some of them 255, as ``forward`` takes them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(2):
        labels = torch.randint(0, CLASSES, (1, size, size), generator=generator)
        labels[:, : size // 4] = 255
        sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return dict(inputs=torch.randn(2, 3, size, size, generator=generator), data_samples=samples)


def detection_batch(size: int = 128, seed: int = 5) -> dict[str, Any]:
    """Return random images with two boxes each."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size), scale_factor=(1.0, 1.0))
    samples = []
    for number in range(2):
        sample = DetDataSample(metainfo=dict(shape, batch_input_shape=(size, size), img_id=number))
        boxes = torch.tensor([[8.0, 8.0, 60.0, 70.0], [50.0, 40.0, 120.0, 110.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([number, 7]))
        samples.append(sample)
    return dict(inputs=torch.randn(2, 3, size, size, generator=generator), data_samples=samples)


class Forwards:
    """Count how often a module runs."""

    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        module.register_forward_pre_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1
