"""Are hooks written as the Runner takes them, and is an average of the student one that it can make?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import MODELS
from mmengine.runner.priority import Priority, get_priority

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.registries import find_type, suggestion
from kdplugin.preflight.run_length import RunLength, is_count
from kdplugin.preflight.signatures import accepted

HALF = 0.5
"""A momentum above it forgets the student's past; the decay of other libraries is 1 minus it."""


def check_hook_entries(found: Findings, config: Config) -> None:
    """Every custom hook is a dict with a type, of a priority that there is."""
    for number, hook in enumerate(config.get('custom_hooks') or ()):
        path = f'custom_hooks.{number}'
        if isinstance(hook, Hook):
            continue
        if not isinstance(hook, Mapping):
            found.error(path, f'Expected a dict but got {hook!r}. Write dict(type={str(hook)!r}).')
        elif 'type' not in hook:
            found.error(path, f"Expected a type beside {sorted(hook)} but got none. Write dict(type='EMAHook', ...).")
    for path, hook in hooks_of(config):
        _check_priority(found, path, hook.get('priority', 'NORMAL'))


def _check_priority(found: Findings, path: str, priority: Any) -> None:
    try:
        get_priority(priority)
    except (ValueError, TypeError, KeyError):
        names = [one.name for one in Priority]
        found.error(
            f'{path}.priority',
            f'Expected one of {names}, or a number from 0 to 100, but got {priority!r}.'
            f'{did_you_mean(str(priority), names)} Choose one.',
        )


def check_averages(found: Findings, config: Config) -> None:
    """An ``EMAHook`` averages slowly, by a known type and with the settings that this takes."""
    length = RunLength.of(config)
    for path, hook in hooks_of(config):
        if kind_of(hook) == 'EMAHook':
            _check_momentum(found, path, hook.get('momentum', 0.0002))
            _check_average(found, path, hook)
            _check_pace(found, path, hook, length.iters if length is not None else None)


def _check_momentum(found: Findings, path: str, momentum: Any) -> None:
    if isinstance(momentum, bool) or not isinstance(momentum, int | float) or not 0 < momentum < 1:
        found.error(
            f'{path}.momentum', f'Expected a number between 0 and 1 but got {momentum!r}. Give for example 0.0002.'
        )
    elif momentum > HALF:
        found.warning(
            f'{path}.momentum',
            f'Expected the share of the newest weights, such as 0.0002, but got {momentum:g}. If that is the decay of '
            f'another library, write {1 - momentum:.4g}.',
        )


def _check_pace(found: Findings, path: str, hook: Mapping[str, Any], iters: int | None) -> None:
    """An average in a training of so many iterations leaves its first weights behind."""
    interval, begin, momentum = hook.get('interval', 1), hook.get('begin_iter', 0), hook.get('momentum', 0.0002)
    if iters is None or not is_count(interval) or interval < 1 or not is_count(begin):
        return
    if interval >= iters:
        found.error(
            f'{path}.interval',
            f'Expected an average that is updated within {iters} iterations but got interval={interval}. The student '
            'would be validated and kept as it was at the start: write 1.',
        )
        return
    steady = str(hook.get('ema_type', 'ExponentialMovingAverage')).rpartition('.')[2] == 'ExponentialMovingAverage'
    if not steady or not isinstance(momentum, float) or not 0 < momentum < 1 or begin > HALF * iters:
        return
    updates = (iters - begin) // interval
    kept = (1 - momentum) ** updates
    if kept > HALF:
        found.warning(
            f'{path}.momentum',
            f'Expected an average of the trained weights but got one that is {kept:.0%} its first ones after {updates} '
            f'updates with momentum={momentum:g}. Write momentum={min(0.1, 10 / updates):.1g}, or '
            "ema_type='ExpMomentumEMA'.",
        )


def _check_average(found: Findings, path: str, hook: Mapping[str, Any]) -> None:
    kind = hook.get('ema_type', 'ExponentialMovingAverage')
    average = find_type(kind, (MODELS,), hook.get('_scope_'))
    if average is None:
        found.error(
            f'{path}.ema_type',
            f'Expected a kind of average but got {kind!r}.{suggestion(str(kind), (MODELS,), None)} Correct it.',
        )
        return
    gamma = hook.get('gamma')
    if gamma is not None and (isinstance(gamma, bool) or not isinstance(gamma, int | float) or gamma <= 0):
        found.error(f'{path}.gamma', f'Expected a number > 0 but got {gamma!r}. Write for example 2000.')
    takes = accepted(average)
    known = accepted(EMAHook).names | takes.names - {'model', 'kwargs'}
    for key in hook:
        if key not in known and key not in ('type', 'priority', '_scope_') and not takes.open:
            near = did_you_mean(str(key), known) or ' Remove it, or correct the name.'
            cure = ' Write momentum, which is 1 minus it.' if key == 'decay' else near
            found.error(
                f'{path}.{key}',
                f'Expected keys {sorted(known)} in EMAHook but got {key!r}.{cure}',
            )
