"""What two runs do not share: a comparison is only worth something between equal recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdplugin.distill.model_config import plain_model_config
from kdplugin.reports.run_log import RunLog

SECTIONS = (
    'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr', 'train_dataloader', 'val_dataloader',
    'val_evaluator', 'randomness',
)  # fmt: skip
SHOWN = 4
"""Differences spelled out for each section."""


def recipe_differences(baseline: RunLog, kd: RunLog) -> list[str]:
    """Return a sentence for each part, distillation apart, in which two runs differ; empty when equal."""
    lines = []
    parts = [(name, baseline.config.get(name), kd.config.get(name)) for name in SECTIONS]
    parts.append(('student model', plain_model_config(baseline.config), plain_model_config(kd.config)))
    parts.append(('load_from', _initial_weights(baseline), _initial_weights(kd)))
    parts.append(('custom_hooks', _training_hooks(baseline), _training_hooks(kd)))
    for name, left, right in parts:
        differences = list(_differences(name, _plain(left), _plain(right)))
        if differences:
            more = f' and {len(differences) - SHOWN} more' if len(differences) > SHOWN else ''
            lines.append(f'not the same recipe: {"; ".join(differences[:SHOWN])}{more}')
    ends = [run.train[-1]['step'] for run in (baseline, kd)]
    if ends[0] != ends[1]:
        lines.append(f'not the same budget: the baseline was trained to iteration {ends[0]:g}, KD to {ends[1]:g}')
    if all((run.config.get('randomness') or {}).get('seed') is None for run in (baseline, kd)):
        lines.append('no seed is set in either run: part of the difference is chance')
    return lines


def differences_among(runs: Mapping[str, RunLog], owner: str) -> list[str]:
    """Return a sentence for each run that differs from the first in more than its seed.

    Args:
        runs: by the name that sentences use.
        owner: what they are all runs of.
    """
    lines = []
    (first, one), *others = runs.items()
    for name, other in others:
        found: list[str] = []
        for section in (*SECTIONS, 'model'):
            left, right = (_without_seed(_plain(run.config.get(section))) for run in (one, other))
            found += _differences(section, left, right, (first, name))
        ends = [f'{run.train[-1]["step"]:g}' for run in (one, other)]
        found += [f'it ends at iteration {ends[0]} in {first}, {ends[1]} in {name}'] if ends[0] != ends[1] else []
        if found:
            more = f' and {len(found) - SHOWN} more' if len(found) > SHOWN else ''
            lines.append(f'{owner}: not only the seed differs: {"; ".join(found[:SHOWN])}{more}')
    return lines


def _without_seed(section: Any) -> Any:
    return {key: value for key, value in section.items() if key != 'seed'} if isinstance(section, dict) else section


def _initial_weights(run: RunLog) -> Any:
    """Return the file a run began from; in a resumed run ``load_from`` is its own checkpoint."""
    return None if run.config.get('resume') else run.config.get('load_from')


def _training_hooks(run: RunLog) -> list[Any]:
    """Hooks other than our own: those change nothing without distillation."""
    hooks = run.config.get('custom_hooks') or []
    return [hook for hook in hooks if not str(hook.get('type')).startswith('kdplugin.')]


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, 'to_dict') else value


def _differences(path: str, left: Any, right: Any, names: tuple[str, str] = ('the baseline', 'KD')) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in dict.fromkeys([*left, *right]):
            yield from _differences(f'{path}.{key}', left.get(key), right.get(key), names)
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            yield from _differences(f'{path}[{index}]', _plain(a), _plain(b), names)
    elif left != right:
        yield f'{path} is {_short(left)} in {names[0]}, {_short(right)} in {names[1]}'


def _short(value: Any) -> str:
    text = 'not set' if value is None else repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
