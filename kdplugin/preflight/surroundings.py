"""Settings around the training: scope, log level, start method, seed, colours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.quiet import logging_from
from kdplugin.preflight.registries import SCOPES, installed

START_METHODS = ('fork', 'spawn', 'forkserver')
RGB_MEAN = (123.675, 116.28, 103.53)
"""ImageNet's, in the order red, green, blue."""


def check_scope(found: Findings, config: Config) -> None:
    """``default_scope`` is a package with registries of its own."""
    scope = config.get('default_scope')
    if scope is None:
        found.warning('default_scope', "Expected default_scope but got none. Write default_scope='mmdet' or 'mmseg'.")
    elif isinstance(scope, str) and scope not in SCOPES:
        with logging_from(logging.CRITICAL):
            known = installed(f'{scope}.registry') and MODELS._search_child(scope) is not None
        if not known and not installed(f'{scope}.registry'):
            found.error(
                'default_scope',
                f'Expected a scope such as {list(SCOPES)} but got {scope!r}, which is not installed.'
                f'{did_you_mean(scope, SCOPES)} Correct default_scope.',
            )


def check_environment(found: Findings, config: Config) -> None:
    """Log level, start method and seed are such as Python and torch know."""
    level = config.get('log_level', 'INFO')
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        names = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
        found.not_among('log_level', level, names)
    env = config.get('env_cfg')
    method = (env.get('mp_cfg') or {}).get('mp_start_method') if isinstance(env, Mapping) else None
    if method is not None and method not in START_METHODS:
        found.not_among('env_cfg.mp_cfg.mp_start_method', method, START_METHODS)
    randomness = config.get('randomness')
    seed = randomness.get('seed') if isinstance(randomness, Mapping) else None
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        found.error('randomness.seed', f'Expected a whole number >= 0 but got {seed!r}. Give a number, or None.')
    if seed is None:
        found.note(
            'randomness.seed', 'no seed is set: the run cannot be repeated, and resumes with the same data order only.'
        )


def check_colours(found: Findings, config: Mapping[str, Any], model: Any, path: str) -> None:
    """Images are normalised in the order and the range of their colours.

    Images are read as blue, green, red from 0 to 255; ``bgr_to_rgb`` turns them.
    """
    settings = model.get('data_preprocessor') if isinstance(model, Mapping) else None
    if settings is None:
        settings, path = config.get('data_preprocessor'), 'data_preprocessor' if path != 'model.teacher' else path
    else:
        path = f'{path}.data_preprocessor'
    if not isinstance(settings, Mapping):
        return
    mean, std = settings.get('mean'), settings.get('std')
    if mean is None or std is None or not _numbers(mean) or not _numbers(std):
        return
    if min(std) <= 0:
        found.error(f'{path}.std', f'Expected numbers > 0 but got {list(std)}. Correct std.')
        return
    if 0 < max(mean) <= 1.0 and max(std) <= 1.0:
        found.error(
            f'{path}.mean',
            f'Expected mean and std of values from 0 to 255 but got {list(mean)} and {list(std)}. Multiply them '
            'by 255.',
        )
        return
    rgb = bool(settings.get('bgr_to_rgb')) != bool(settings.get('rgb_to_bgr'))
    for order, expected in ((RGB_MEAN, True), (RGB_MEAN[::-1], False)):
        if all(abs(one - other) < 1.0 for one, other in zip(mean, order, strict=True)) and rgb != expected:
            found.warning(
                f'{path}.bgr_to_rgb',
                f'Expected bgr_to_rgb={expected} beside mean={list(mean)}, which is in the order '
                f'{"red, green, blue" if expected else "blue, green, red"}, but got {rgb}. Correct one of them.',
            )


def _numbers(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in value)
    )
