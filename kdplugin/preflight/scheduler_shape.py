"""Does the learning rate run as its schedulers mean it: down to the end, not up again, not out of steps?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.config_tree import typed_below
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.rates import optimizer_of
from kdplugin.preflight.run_length import RunLength, is_count

NEAR = 0.1
"""Share of its span by which the period of a cosine may differ: a warm-up is often counted in."""
FAR = 5
"""Times the epochs of a training beyond which an end is one of iterations."""


NUMBERS = ('power', 'gamma', 'start_factor', 'end_factor', 'factor', 'eta_min', 'eta_max', 'eta_min_ratio', 'T_max')
"""Settings of schedulers that are calculated with."""
DIVIDED = {'LinearLR': ('start_factor',), 'ConstantLR': ('factor',)}
"""Factors that the rate is divided by later."""


def check_scheduler_shapes(found: Findings, config: Config) -> None:
    """Every scheduler ends after it begins, and takes the rate where it should."""
    schedulers, length = config.get('param_scheduler'), RunLength.of(config)
    lr = (optimizer_of(config) or {}).get('lr')
    for part in typed_below(schedulers, 'param_scheduler', ()) if schedulers else ():
        _check_numbers(found, part.path, part.settings)
        _check_ends(found, part.path, part.settings)
        _check_values(found, part.path, part.settings, lr)
        if length is not None:
            _check_span(found, part.path, part.settings, length)


def _check_numbers(found: Findings, path: str, settings: Mapping[str, Any]) -> None:
    for key in NUMBERS:
        if isinstance(settings.get(key), str):
            found.error(f'{path}.{key}', f'Expected a number but got {settings[key]!r}. Write it without quotes.')
    for key in DIVIDED.get(kind_of(settings), ()):
        if settings.get(key) == 0:
            found.error(
                f'{path}.{key}', f'Expected a factor above 0, which rates are divided by, but got 0. Write {key}=0.001.'
            )


def _check_ends(found: Findings, path: str, settings: Mapping[str, Any]) -> None:
    begin, end = settings.get('begin', 0), settings.get('end')
    if is_count(begin) and is_count(end) and end <= begin:
        found.error(
            f'{path}.end', f'Expected an end after begin={begin} but got end={end}. It would never act: correct one.'
        )
    steps = settings.get('milestones')
    if steps is not None and not isinstance(steps, list | tuple):
        found.error(f'{path}.milestones', f'Expected a list but got {steps!r}. Write milestones=[{steps}].')


def _check_values(found: Findings, path: str, settings: Mapping[str, Any], lr: Any) -> None:
    gamma, least = settings.get('gamma'), settings.get('eta_min')
    if isinstance(gamma, int | float) and gamma > 1 and kind_of(settings).endswith(('StepLR', 'ExponentialLR')):
        found.warning(
            f'{path}.gamma',
            f'Expected a factor up to 1 but got gamma={gamma:g}. The rate would grow: write {1 / gamma:g}.',
        )
    if isinstance(least, int | float) and isinstance(lr, int | float) and 0 < lr < least:
        found.warning(
            f'{path}.eta_min',
            f'Expected eta_min below the rate of {lr:g} but got {least:g}. The rate would grow: lower it.',
        )


def _check_span(found: Findings, path: str, settings: Mapping[str, Any], length: RunLength) -> None:
    by_epoch = bool(settings.get('by_epoch', True))
    whole, begin = length.end(by_epoch), settings.get('begin', 0)
    if whole is None or not is_count(begin):
        return
    end = settings.get('end')
    if by_epoch and is_count(end) and end > FAR * whole and 'Linear' in kind_of(settings):
        found.error(
            f'{path}.by_epoch',
            f'Expected a warm-up within {length} but got end={end} in epochs. The rate would stay near its start: '
            'write by_epoch=False, so that these are iterations.',
        )
    span = min(end if is_count(end) else whole, whole) - begin
    period = settings.get('T_max')
    if kind_of(settings).startswith('CosineAnnealing') and is_count(period) and abs(period - span) > NEAR * span > 0:
        what = 'rises again after' if period < span else 'does not come down before'
        found.warning(
            f'{path}.T_max',
            f'Expected T_max {span}, as long as the scheduler acts, but got {period}. The rate {what} that: set it to '
            f'{span}.',
        )
    total = settings.get('total_steps')
    if is_count(total) and total < span:
        found.error(
            f'{path}.total_steps',
            f'Expected total_steps of at least {span}, as the training of {length} takes, but got {total}. It stops '
            'with an error there: raise it.',
        )
    elif is_count(total) and total > span:
        found.warning(
            f'{path}.total_steps',
            f'Expected total_steps {span}, as the training of {length} takes, but got {total}. The rate does not come '
            'down: lower it.',
        )
