"""Do the weights of a distillation let it act: for longer than a moment, once, beside a task that counts?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.distill.pairs import parse_weight
from kdplugin.distill.schedules import Schedule, Weight
from kdplugin.distill.settings import parse_task_weight
from kdplugin.errors import ConfigError
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.run_length import RunLength

MOST = 10.0
"""Times the task that a pair is calibrated to by nobody who means it."""
COUNTS = ('weight', 'warmup', 'stop_after', 'by_epoch', 'target_ratio', 'calibration_iters', 'on_nan')
"""What two pairs may differ in and still compare the same."""


def check_pair_weights(found: Findings, config: Config) -> None:
    """Pairs act, each for longer than a moment and once, and the task is trained too."""
    model = config.get('model')
    if not isinstance(model, Mapping) or not is_distillation(model):
        return
    entries = dict(pair_entries(config))
    weights = dict(_weights(entries))
    length = RunLength.of(config)
    for name, weight in weights.items():
        _check_moment(found, f'model.pairs.{name}', weight, length)
    for name, entry in entries.items():
        ratio = entry.get('target_ratio')
        if isinstance(ratio, int | float) and ratio > MOST:
            found.warning(
                f'model.pairs.{name}.target_ratio',
                f'Expected a share of the task such as 0.5 but got {ratio:g}, which makes the pair {ratio:g} times as '
                f'large. Write {ratio / 100:g} for {ratio:g} %.',
            )
    _check_twice(found, entries)
    _check_task(found, model, weights)


def pair_entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the config of each pair of a distillation, none of another model."""
    model = config.get('model')
    pairs = model.get('pairs') if isinstance(model, Mapping) and is_distillation(model) else None
    for name, entry in pairs.items() if isinstance(pairs, Mapping) else ():
        if isinstance(entry, Mapping):
            yield str(name), entry


def _weights(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Weight]]:
    for name, entry in entries.items():
        with contextlib.suppress(ConfigError):  # said by the engine's own checks
            yield name, parse_weight(name, entry)


def _check_moment(found: Findings, path: str, weight: Weight, length: RunLength | None) -> None:
    if weight.stop_after == 0:
        found.error(
            f'{path}.stop_after', 'Expected a pair that acts but got stop_after=0. It never would: leave it out.'
        )
    epochs = length.epochs if length is not None and not weight.by_epoch else None
    for key in ('warmup', 'stop_after'):
        value = getattr(weight, key)
        if value and epochs is not None and value <= epochs:
            found.warning(
                f'{path}.{key}',
                f'Expected {key} in iterations but got {value}, over before the first epoch of {epochs} is. Write '
                'by_epoch=True beside it if these are epochs.',
            )


def _check_twice(found: Findings, entries: Mapping[str, Mapping[str, Any]]) -> None:
    seen: dict[str, str] = {}
    for name, entry in entries.items():
        own = {str(key): value for key, value in entry.items() if key not in COUNTS}
        text = json.dumps(own, sort_keys=True, default=str)
        if text in seen:
            found.warning(
                f'model.pairs.{name}',
                f'Expected pairs that differ but got the taps and the loss of {seen[text]!r} once more. Their weights '
                'add up: remove one, or correct its taps.',
            )
        seen.setdefault(text, name)


def _check_task(found: Findings, model: Mapping[str, Any], weights: Mapping[str, Weight]) -> None:
    try:
        task = parse_task_weight(model)
    except ConfigError:
        return
    alpha: Schedule | None = task.get('alpha')
    if weights and (
        all(one.peak == 0 and one.stop_after != 0 for one in weights.values())
        or (alpha is not None and alpha.peak == 0)
    ):
        found.warning(
            'model.pairs' if alpha is None or alpha.peak else 'model.alpha',
            'Expected a pair with a weight above 0 but got none. The student trains without its teacher: raise one.',
        )
    own = task.get('task_weight')
    idle = (own is not None and own.peak == 0) or (alpha is not None and alpha.constant and alpha.peak == 1)
    if idle:
        found.warning(
            'model.task_weight' if alpha is None else 'model.alpha',
            "Expected the student's own losses to count but their weight is 0. The labels teach nothing: lower alpha, "
            'or raise task_weight.',
        )
