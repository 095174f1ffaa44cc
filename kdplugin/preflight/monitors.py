"""Is the better value of a metric kept and waited for: which way it goes, and in which steps it is counted?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.config_tree import typed_below
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of

HIGHER = {'map', 'miou', 'mdice', 'macc', 'aacc', 'mfscore', 'mprecision', 'mrecall', 'ar', 'accuracy'}
"""Words in the names of metrics that are better the larger they are."""
PERCENT = ('mIoU', 'mDice', 'mAcc', 'aAcc', 'mFscore', 'mPrecision', 'mRecall')
"""Metrics from 0 to 100; those of boxes go from 0 to 1."""
COARSE = 0.05
"""Share of its range that a metric rarely gains between two validations."""


@dataclass(frozen=True)
class Monitor:
    """A metric that somebody acts on.

    Args:
        path: of who acts, in the config.
        name: of the metric.
        rule: 'greater' or 'less' as written, None where mmengine derives it from the name.
        written: the config says the rule; else it is a default.
    """

    path: str
    name: str
    rule: Any
    written: bool


def plateaus(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and settings of the schedulers that wait for a metric."""
    schedulers = config.get('param_scheduler')
    for part in typed_below(schedulers, 'param_scheduler', ()) if schedulers else ():
        if kind_of(part.settings).startswith('ReduceOnPlateau'):
            yield part.path, part.settings


def monitors(config: Mapping[str, Any]) -> Iterator[Monitor]:
    """Yield every metric that keeps a checkpoint, stops the training or lowers a rate."""
    for path, hook in hooks_of(config):
        value = hook.get('save_best', hook.get('monitor'))
        names = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
        rules = hook.get('rule')
        listed = rules if isinstance(rules, list | tuple) else [rules]
        for number, name in enumerate(names):
            rule = listed[number] if len(listed) == len(names) else listed[0] if listed else None
            yield Monitor(path, str(name), rule, rule is not None)
    for path, settings in plateaus(config):
        yield Monitor(path, str(settings.get('monitor', 'loss')), settings.get('rule', 'less'), 'rule' in settings)


def better(name: str) -> str | None:
    """Return which way a metric is better, None where its name does not tell.

    Example:
        >>> better('coco/bbox_mAP'), better('loss'), better('FID')
        ('greater', 'less', None)
    """
    words = set(re.split('[^a-z0-9]', name.rpartition('/')[2].lower()))
    if 'loss' in words:
        return 'less'
    return 'greater' if words & HIGHER else None


def check_rules(found: Findings, config: Config) -> None:
    """The better value is kept, and not the worse one."""
    for one in monitors(config):
        right = better(one.name)
        if right is not None and one.rule in ('greater', 'less') and one.rule != right:
            default = '' if one.written else ', the default'
            found.error(
                f'{one.path}.rule',
                f'Expected rule={right!r} for {one.name} but got {one.rule!r}{default}. The worst value would count '
                f'as the best: write rule={right!r}.',
            )


def check_patience(found: Findings, config: Config) -> None:
    """An ``EarlyStoppingHook`` waits for gains that there are, in the numbers that its metric has."""
    for path, hook in hooks_of(config):
        name = hook.get('monitor')
        if kind_of(hook) == 'EarlyStoppingHook' and isinstance(name, str) and better(name) == 'greater':
            whole = 100.0 if name.rpartition('/')[2] in PERCENT else 1.0
            _check_gain(found, path, hook.get('min_delta', 0.1), name, whole)
            _check_threshold(found, path, hook.get('stopping_threshold'), name, whole)
            if hook.get('patience', 5) in (0, -1):
                found.warning(
                    f'{path}.patience',
                    f'Expected some validations of patience but got {hook["patience"]}. The first one without a gain '
                    'ends the training: write 5.',
                )


def _check_gain(found: Findings, path: str, gain: Any, name: str, whole: float) -> None:
    if isinstance(gain, int | float) and gain >= COARSE * whole:
        found.warning(
            f'{path}.min_delta',
            f'Expected a small gain of {name}, which goes from 0 to {whole:g}, but got min_delta={gain:g}. Smaller '
            f'gains would count as none, and the training stop early: write min_delta={whole / 1000:g}.',
        )


def _check_threshold(found: Findings, path: str, threshold: Any, name: str, whole: float) -> None:
    if not isinstance(threshold, int | float) or isinstance(threshold, bool):
        return
    if whole > 1 and threshold <= 1:
        found.warning(
            f'{path}.stopping_threshold',
            f'Expected a value of {name} in percent but got {threshold:g}. It is reached at once: write '
            f'{threshold * whole:g}.',
        )
    elif threshold > whole:
        found.warning(
            f'{path}.stopping_threshold',
            f'Expected a value of {name} up to {whole:g} but got {threshold:g}. It is never reached: write '
            f'{threshold / 100:g}.',
        )
