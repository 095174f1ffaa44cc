"""Is the log's processor one that the Runner can make?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.run_length import is_count


def check_log(found: Findings, config: Config) -> None:
    """Patterns are regular expressions, and windows are counted in what the log counts."""
    settings = config.get('log_processor')
    if not isinstance(settings, Mapping):
        return
    pattern = settings.get('mean_pattern')
    if pattern is not None:
        _check_pattern(found, pattern)
    size = settings.get('window_size', 1)
    if not is_count(size) or size < 1:
        found.error('log_processor.window_size', f'Expected a whole number > 0 but got {size!r}. Write window_size=50.')
    windows = settings.get('custom_cfg')
    if windows and not isinstance(windows, list | tuple):
        found.error(
            'log_processor.custom_cfg',
            f"Expected a list of dicts but got {windows!r}. Write [dict(data_src='loss', method_name='mean', "
            'window_size=100)].',
        )
        return
    for number, window in enumerate(windows or ()):
        _check_window(found, f'log_processor.custom_cfg.{number}', window, bool(settings.get('by_epoch', True)))


def _check_pattern(found: Findings, pattern: Any) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        found.error(
            'log_processor.mean_pattern',
            f"Expected a regular expression but got {pattern!r} ({error}). Write '.*(loss|time|grad_norm).*'.",
        )


def _check_window(found: Findings, path: str, window: Any, by_epoch: bool) -> None:
    if not isinstance(window, Mapping):
        found.error(path, f"Expected a dict but got {window!r}. Write dict(data_src='loss', method_name='mean').")
        return
    for key in ('data_src', 'method_name'):
        if key not in window:
            found.error(path, f'Expected {key} in custom_cfg but got {sorted(window)}. Add it.')
    size = window.get('window_size', 1)
    if size == 'epoch' and not by_epoch:
        found.error(
            f'{path}.window_size',
            "Expected a number of iterations in a log that counts them but got 'epoch'. Write window_size=100.",
        )
    elif size not in ('epoch', 'global') and not (isinstance(size, int) and size > 0):
        found.error(
            f'{path}.window_size',
            f"Expected a whole number, 'epoch' or 'global' but got {size!r}. Write window_size=100.",
        )
