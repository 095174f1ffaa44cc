"""Settings that the Runner reads from a few fixed words: imports, launcher, back ends, seeds, loops."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from torch import nn

from kdplugin.module_paths import did_you_mean, find_module
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.registries import find_type

INNER: dict[str, tuple[str, ...]] = {
    'custom_imports': ('imports', 'allow_failed_imports'),
    'env_cfg': ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.mp_cfg': ('mp_start_method', 'opencv_num_threads'),
    'randomness': ('seed', 'diff_rank_seed', 'deterministic'),
    'auto_scale_lr': ('enable', 'base_batch_size'),
}
"""Keys that are read from dicts without a type."""
WORDS: dict[str, tuple[str, ...]] = {
    'launcher': ('none', 'pytorch', 'slurm', 'mpi'),
    'sync_bn': ('torch', 'mmcv'),
    'env_cfg.dist_cfg.backend': ('nccl', 'gloo', 'mpi', 'ucc', 'xccl', 'hccl', 'cncl', 'mccl', 'smddp'),
}
"""Keys that are one of some words."""
COMPILE_MODES = ('default', 'reduce-overhead', 'max-autotune', 'max-autotune-no-cudagraphs')
NO_MODULES = ('train_cfg', 'test_cfg', 'init_cfg')
"""Dicts of a model that become no module."""
PACKAGES = {
    'TensorboardVisBackend': 'tensorboard', 'WandbVisBackend': 'wandb', 'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml', 'NeptuneVisBackend': 'neptune', 'DVCLiveVisBackend': 'dvclive',
    'AimVisBackend': 'aim',
}  # fmt: skip
"""What a back end of the visualizer imports when training begins."""


def at(config: Config, path: str) -> Any:
    """Return the value at a dotted path of dicts, None where there is none."""
    first, *rest = path.split('.')
    value = config.get(first)
    for key in rest:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def check_inner_keys(found: Findings, config: Config) -> None:
    """Dicts without a type hold the keys that are read from them."""
    for path, known in INNER.items():
        value = at(config, path)
        for key in value if isinstance(value, Mapping) else ():
            if key not in known and not str(key).startswith('_'):
                found.error(
                    f'{path}.{key}',
                    f'Expected keys {list(known)} in {path} but got {key!r}, which is not read.'
                    f'{did_you_mean(str(key), known)} Correct the name or remove it.',
                )


def check_words(found: Findings, config: Config) -> None:
    """Launcher, back end and kind of SyncBN are known ones, and ``resume`` is no path."""
    for path, known in WORDS.items():
        value = at(config, path)
        if isinstance(value, str) and value not in known:
            found.not_among(path, value, known)
    if isinstance(config.get('resume'), str):
        found.error(
            'resume',
            f'Expected resume to be True or False but got the text {config.resume!r}, which is not read as a path. '
            'Write resume=True and load_from=PATH; load_from=None takes the newest of the work dir.',
        )


def check_imports(found: Findings, config: Config) -> None:
    """What a config imports is there, also where it says that failing is allowed."""
    settings = config.get('custom_imports')
    names = settings.get('imports') if isinstance(settings, Mapping) else None
    if isinstance(settings, Mapping) and names is None:
        found.error('custom_imports', "Expected imports in custom_imports but got none. Write imports=['my_package'].")
    for name in [names] if isinstance(names, str) else names or () if isinstance(names, list | tuple) else ():
        if not _importable(str(name)):
            found.warning(
                'custom_imports.imports',
                f'Expected a module that can be imported but {name!r} is none here. What it registers will be missing: '
                'correct the name, or put its folder on PYTHONPATH.',
            )


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def check_loop_kind(found: Findings, config: Config) -> None:
    """The training loop is named once, and what its log counts is what it counts."""
    loop = config.get('train_cfg')
    if not isinstance(loop, Mapping):
        return
    if 'type' in loop and 'by_epoch' in loop:
        found.error(
            'train_cfg.by_epoch',
            f'Expected either type or by_epoch in train_cfg but got type={kind_of(loop)!r} and by_epoch='
            f'{loop["by_epoch"]}. The Runner refuses both: remove by_epoch.',
        )
    by_epoch = 'Iter' not in kind_of(loop) if 'type' in loop else bool(loop.get('by_epoch', True))
    log = config.get('log_processor')
    if isinstance(log, Mapping) and log.get('by_epoch', True) and not by_epoch:
        found.warning(
            'log_processor.by_epoch',
            'Expected a log of iterations, as train_cfg counts them, but got one of epochs. Write by_epoch=False.',
        )


def check_runner_kind(found: Findings, config: Config) -> None:
    """The Runner is known; a strategy has the Runner that reads it."""
    kind = config.get('runner_type')
    if kind is not None and find_type(kind, (RUNNERS,), None) is None:
        found.not_among('runner_type', kind, ('Runner', 'FlexibleRunner'))
    elif mistake := strategy_mistake(config):
        found.error('runner_type', mistake)


def strategy_mistake(config: Config) -> str | None:
    """Return why the strategy of a config would be left out, None if it has none or one that is read."""
    strategy, kind = config.get('strategy'), config.get('runner_type')
    if not isinstance(strategy, Mapping) or not strategy or kind == 'FlexibleRunner':
        return None
    return (
        f"Expected runner_type='FlexibleRunner' beside strategy {strategy.get('type')} but got {kind!r}, which would "
        "leave the strategy out. Add runner_type='FlexibleRunner'."
    )


def check_compile(found: Findings, config: Config) -> None:
    """``compile`` names a back end and a mode that torch has."""
    settings = config.get('compile')
    if not isinstance(settings, Mapping):
        return
    backend, mode = settings.get('backend'), settings.get('mode')
    if isinstance(backend, str):
        known = torch.compiler.list_backends(exclude_tags=())
        if backend not in known:
            found.not_among('compile.backend', backend, known)
    if isinstance(mode, str) and mode not in COMPILE_MODES:
        found.not_among('compile.mode', mode, COMPILE_MODES)


def check_wrapped_parts(found: Findings, config: Config) -> None:
    """What is recomputed or fused is a part of the student: 'backbone', 'backbone.layer4'."""
    model = config.get('model')
    student = model.get('student', model) if isinstance(model, Mapping) else None
    if not isinstance(student, Mapping):
        return
    parts = [str(key) for key, value in student.items() if isinstance(value, Mapping | list) and key not in NO_MODULES]
    for key, name in _wrapped(config):
        first = name.partition('.')[0]
        near = did_you_mean(first, parts)
        if first not in parts and near:
            found.error(key, f'Expected a part of the student of {parts} but got {name!r}.{near} Correct it.')


def check_wrapped_modules(found: Findings, config: Config, student: nn.Module) -> None:
    """The same, of the student as it is built."""
    for key, name in _wrapped(config):
        if not any(one.where == key for one in found.errors):
            found.attempt(key, 'a module of the student', find_module, student, name, 'student')


def _wrapped(config: Config) -> Iterator[tuple[str, str]]:
    for key in ('activation_checkpointing', 'efficient_conv_bn_eval'):
        names = config.get(key)
        for name in [names] if isinstance(names, str) else names if isinstance(names, list | tuple) else ():
            yield key, str(name)


def check_backends(found: Findings, config: Config) -> None:
    """The packages that the visualizer's back ends write with are installed."""
    visualizer = config.get('visualizer')
    backends = visualizer.get('vis_backends') if isinstance(visualizer, Mapping) else None
    for number, backend in enumerate(backends if isinstance(backends, list | tuple) else ()):
        package = PACKAGES.get(kind_of(backend)) if isinstance(backend, Mapping) else None
        if package is not None and not _importable(package):
            found.error(
                f'visualizer.vis_backends.{number}',
                f'Expected the package {package} for {kind_of(backend)} but it is not installed. Run pip install '
                f'{package}, or remove the back end.',
            )
