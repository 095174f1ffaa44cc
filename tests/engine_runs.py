"""Whole training runs on the shared digit scenes, recorded exactly."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from engine_fixtures import CLASSES, Forwards
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from torch import nn

from kdplugin import launch
from kdplugin.distill.distiller import adapters_of
from kdplugin.hooks import atomic_backend
from kdplugin.weights.reading.io import hash_file, hash_tensors

_names = itertools.count()


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
        stop: ``(method of Hook, iteration)`` at which the run dies with ``Stopped``.
    """

    priority = 'NORMAL'

    def __init__(self, stop: tuple[str, int] | None = None) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.validations: dict[int, dict[str, float]] = {}
        self.stop = stop

    def _maybe_stop(self, runner: Runner, method: str) -> None:
        if self.stop and tuple(self.stop) == (method, runner.iter):
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


@HOOKS.register_module()
class WatchTeacher(Hook):
    """Count the forward passes of the teacher."""

    def before_train(self, runner: Runner) -> None:
        self.teacher = Forwards(runner.model._distillation.teacher.module)


@HOOKS.register_module()
class WatchImages(Hook):
    """Keep the file names of every training batch."""

    def __init__(self) -> None:
        self.images: list[list[str]] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self.images.append([Path(sample.img_path).name for sample in data_batch['data_samples']])


@HOOKS.register_module()
class KillWhileWriting(Hook):
    """Kill the process when a checkpoint is written but has not got its name yet."""

    def __init__(self, name: str) -> None:
        self.name = name

    def before_train(self, runner: Runner) -> None:
        def die(temporary: str) -> str:
            if self.name in str(temporary):
                os.kill(os.getpid(), signal.SIGKILL)
            return hash_file(temporary)

        atomic_backend.hash_file = die


@HOOKS.register_module()
class NoteRank(Hook):
    """Write to ``rankN.json`` what one process of several ended with."""

    def before_train(self, runner: Runner) -> None:
        self.losses: list[dict[str, float]] = []
        self.start = self._adapters(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        self.losses.append({name: torch.as_tensor(value).item() for name, value in (outputs or {}).items()})

    def after_train(self, runner: Runner) -> None:
        model = runner.model.module
        note = dict(
            world_size=runner.world_size, wrapper=type(runner.model).__name__, losses=self.losses,
            find_unused_parameters=runner.model.find_unused_parameters,
            sync_batchnorms=[name for name, part in model.named_modules() if isinstance(part, nn.SyncBatchNorm)],
            parameters=hash_tensors(dict(model.named_parameters())), adapters=self._adapters(runner),
            adapters_at_start=self.start,
        )  # fmt: skip
        Path(runner.work_dir, f'rank{runner.rank}.json').write_text(json.dumps(note))

    @staticmethod
    def _adapters(runner: Runner) -> str:
        return hash_tensors(adapters_of(runner.model.module).state_dict())


@HOOKS.register_module()
class FailAt(Hook):
    """Let one of several processes fail before an iteration, and note when.

    Args:
        how: 'raise' an error, 'kill' the process or its data 'worker', put 'nan' into a weight, or 'stop' it as a
            scheduler does.
    """

    def __init__(self, how: str, rank: int = 1, iteration: int = 2) -> None:
        self.how, self.when = how, (rank, iteration)

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if (runner.rank, runner.iter) != self.when:
            return
        Path(runner.work_dir, 'failed').write_text(str(time.time()))
        if self.how == 'raise':
            raise RuntimeError('a broken image')
        if self.how == 'nan':
            next(runner.model.parameters()).data.fill_(float('nan'))
        elif self.how == 'worker':
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGTERM if self.how == 'stop' else signal.SIGKILL)


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
                serialize_data=False, pipeline=pipeline,
                metainfo=dict(classes=tuple(map(str, range(CLASSES))), palette=[[n, n, n] for n in range(CLASSES)]),
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
    """Train a config through ``kdplugin.launch`` until it ends or dies.

    The layout of the config inside checkpoints, which is most of the time of a tiny run, is left out.
    """
    init_default_scope('mmseg')
    config.custom_hooks = [dict(type='mmengine.Recorder', stop=stop), *config.custom_hooks]
    config = launch.prepare(config, resume=resume)
    with mock.patch('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True)):
        runner = launch.build_runner(config)
        with contextlib.suppress(Stopped):
            runner.train()
    return Run(runner, next(hook for hook in runner.hooks if isinstance(hook, Recorder)))


class Run:
    """A run that ended or died, and what it recorded."""

    def __init__(self, runner: Runner, recorder: Recorder) -> None:
        self.runner, self.model = runner, runner.model
        self.steps, self.validations = recorder.steps, recorder.validations

    @property
    def teacher_forwards(self) -> int:
        """How often the teacher ran, in a run with a ``WatchTeacher``."""
        return next(hook for hook in self.runner.hooks if isinstance(hook, WatchTeacher)).teacher.count

    @property
    def folder(self) -> Path:
        return Path(self.runner.work_dir)

    def images(self) -> list[list[str]]:
        """File names of every training batch, in a run with a ``WatchImages``."""
        return next(hook for hook in self.runner.hooks if isinstance(hook, WatchImages)).images

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
