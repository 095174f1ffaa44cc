"""Which hooks of a config will never act in its training, and which act twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.run_length import RunLength, is_whole, unit

DEFAULT_HOOKS = (
    'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint',
)  # fmt: skip
"""Names under which the Runner has hooks of its own."""
BEGINS = {
    'begin_iter': False, 'begin_epoch': True, 'switch_epoch': True, 'switch_iter': False, 'start_epoch': True,
    'save_begin': None, 'apply_epoch': True,
}  # fmt: skip
"""Settings that say when a hook begins to act, and whether in epochs; None where by_epoch says so."""
APART: dict[str, dict[str, Any]] = {
    'PipelineSwitchHook': {'switch_epoch': None}, 'WeightProjectionHook': {'target': 'backbone'},
    'EarlyStoppingHook': {'monitor': None},
}  # fmt: skip
"""Hooks that may be there several times, and the settings in which they then differ, with their defaults."""
VALIDATING = ('EarlyStoppingHook',)
OURS = ('DistillationHook', 'WeightProjectionHook', 'SafeCheckpointHook')


def hooks_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the path and settings of every hook that is switched on."""
    named = config.get('default_hooks')
    for name, hook in named.items() if isinstance(named, Mapping) else ():
        if isinstance(hook, Mapping):
            yield f'default_hooks.{name}', hook
    for number, hook in enumerate(config.get('custom_hooks') or ()):
        if isinstance(hook, Mapping):
            yield f'custom_hooks.{number}', hook


def kind_of(settings: Mapping[str, Any]) -> str:
    """Return the name of a type without its scope."""
    kind = settings.get('type')
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def check_hooks(found: Findings, config: Config) -> None:
    """Every hook acts within the training, and none is there twice."""
    length = RunLength.of(config)
    for path, hook in hooks_of(config):
        if length is not None:
            _check_begin(found, path, hook, length)
            _check_interval(found, path, hook, length)
        if kind_of(hook) in VALIDATING and config.get('val_cfg') is None:
            found.error(
                path,
                f'Expected a validation for {kind_of(hook)} but the config has none. It would never act: add one or '
                'remove the hook.',
            )
    _check_twice(found, config)
    _check_names(found, config)
    _check_ours(found, config)


def _check_twice(found: Findings, config: Config) -> None:
    """No hook is there twice, except one that acts elsewhere, or at another time."""
    hooks = list(hooks_of(config))
    custom = [_what(hook) for path, hook in hooks if path.startswith('custom_hooks')]
    for (kind, _), number in Counter(custom).items():
        if number > 1:
            found.warning(
                'custom_hooks',
                f'Expected each hook once but got {number} of {kind}. They act {number} times: keep one.',
            )
    average = next((path for path, hook in hooks if path.startswith('default') and kind_of(hook) == 'EMAHook'), None)
    if average is not None and any(kind == 'EMAHook' for kind, _ in custom):
        found.warning(
            'custom_hooks',
            f'Expected one EMAHook but got {average} besides. Each swaps the weights before a validation, so that the '
            'student is validated without its average: keep one.',
        )


def _what(hook: Mapping[str, Any]) -> tuple[str, str]:
    """Return the kind of a hook, and what tells it from another of its kind."""
    kind = kind_of(hook)
    return kind, str([hook.get(key, default) for key, default in APART.get(kind, {}).items()])


def _check_begin(found: Findings, path: str, hook: Mapping[str, Any], length: RunLength) -> None:
    for key, by_epoch in BEGINS.items():
        value = hook.get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        counts = bool(hook.get('by_epoch', True)) if by_epoch is None else by_epoch
        if counts and not length.by_epoch:
            found.error(
                f'{path}.{key}',
                f'Expected a beginning in iterations but got {key}={value} in a training of {length}, which counts no '
                'epochs. The hook would never act: give iterations.',
            )
            continue
        end = length.end(counts)
        if end is not None and value >= end:
            found.error(
                f'{path}.{key}',
                f'Expected {kind_of(hook)} to begin within {length} but got {key}={value}. It would never act: '
                'lower it.',
            )
    last = hook.get('num_last_epochs')
    if isinstance(last, int) and length.epochs is not None and last >= length.epochs:
        found.warning(
            f'{path}.num_last_epochs',
            f'Expected num_last_epochs within {length} but got {last}. The augmentation is off from the beginning: '
            'lower it.',
        )


def _check_interval(found: Findings, path: str, hook: Mapping[str, Any], length: RunLength) -> None:
    interval = hook.get('interval')
    if interval is None:
        return
    kind = kind_of(hook)
    saves = 'CheckpointHook' in kind
    if not is_whole(interval) or (interval <= 0 and not (saves and interval == -1)):
        found.error(f'{path}.interval', f'Expected a whole number > 0 but got {interval!r}. Give an interval.')
        return
    if not saves:
        end = length.iters
        if end is not None and interval > end and kind == 'LoggerHook':
            found.warning(
                f'{path}.interval', f'Expected log lines within {length} but got interval={interval}. Lower it.'
            )
        return
    by_epoch = bool(hook.get('by_epoch', True))
    if by_epoch and not length.by_epoch:
        found.error(
            f'{path}.by_epoch',
            f'Expected checkpoints by iterations but got by_epoch=True in a training of {length}. Nothing is saved '
            'before the end: write by_epoch=False.',
        )
        return
    end = length.end(by_epoch)
    if interval == -1:
        found.warning(
            f'{path}.interval',
            'Expected checkpoints during the training but got interval=-1. A run that dies begins anew: give one.',
        )
    elif end is not None and interval > end:
        found.warning(
            f'{path}.interval',
            f'Expected a checkpoint within {length} but got interval={interval}. Only the last {unit(by_epoch)} '
            f'{"and the best are" if hook.get("save_best") else "is"} saved, and a run that dies begins anew: lower '
            'it.',
        )


def _check_names(found: Findings, config: Config) -> None:
    named = config.get('default_hooks')
    if not isinstance(named, Mapping):
        return
    kinds = Counter(kind_of(hook) for _, hook in hooks_of(config))
    for name, hook in named.items():
        near = did_you_mean(str(name), DEFAULT_HOOKS)
        if name not in DEFAULT_HOOKS and near and isinstance(hook, Mapping):
            found.error(
                f'default_hooks.{name}',
                f'Expected one of {list(DEFAULT_HOOKS)} but got {name!r}. The Runner adds its own beside it.{near}',
            )
    if 'checkpoint' in named and named['checkpoint'] is None and not any('CheckpointHook' in kind for kind in kinds):
        found.warning(
            'default_hooks.checkpoint',
            'Expected checkpoints but got checkpoint=None. Nothing of the training is kept: remove the line.',
        )
    if 'param_scheduler' in named and named['param_scheduler'] is None and config.get('param_scheduler'):
        found.error(
            'default_hooks.param_scheduler',
            'Expected the hook that steps param_scheduler but got None. The rate would never change: remove the line.',
        )


def _check_ours(found: Findings, config: Config) -> None:
    distilled = isinstance(config.get('model'), Mapping) and is_distillation(config.model)
    for path, hook in hooks_of(config):
        kind = hook.get('type')
        if isinstance(kind, str) and kind in OURS:
            found.error(
                f'{path}.type', f"Expected the prefix of the type but got {kind!r}. Did you mean 'kdplugin.{kind}'?"
            )
        if kind_of(hook) == 'DistillationHook' and not distilled:
            found.warning(
                path,
                'Expected a kdplugin.Distiller for the DistillationHook but the model is none. It would never act: '
                'remove it.',
            )
        if kind_of(hook) == 'WeightProjectionHook' and config.get('resume'):
            found.note(path, 'WeightProjectionHook does nothing where a checkpoint is resumed.')
