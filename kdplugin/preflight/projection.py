"""Can the weights that training is to begin with be projected?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from kdplugin.preflight.data import near_files
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.registry import HOOKS
from kdplugin.weights.reading.hub import is_id
from kdplugin.weights.reports.report import percent

WHERE = 'custom_hooks'


def check_projection_source(found: Findings, config: Config) -> None:
    """The source of each ``WeightProjectionHook`` is on this disk, or may be an address or an id; none has a rival."""
    for path, hook in hooks_of(config):
        source = hook.get('source')
        if kind_of(hook) != 'WeightProjectionHook' or not isinstance(source, str):
            continue
        if config.get('load_from') is not None and not config.get('resume', False):
            found.attempt(WHERE, 'no other weights', _hook_class().check_load_from, config.load_from)
        file = Path(source).expanduser()
        identifier = is_id(source) and not ('/' in source and file.parent.is_dir())
        if '://' not in source and not identifier and not file.exists():
            found.error(
                f'{path}.source',
                f'Expected weights to begin with but {source} does not exist.{near_files(source)} Correct source.',
            )


def _hook_class() -> Any:
    return HOOKS.get('kdplugin.WeightProjectionHook')


def check_projection(found: Findings, config: Config, student: nn.Module) -> None:
    """The source of each ``WeightProjectionHook`` is there, its plan is possible, and it covers enough of the student.

    Args:
        student: as it is built; it stays as it is.
    """
    missing = {one.where for one in found.errors}
    for path, settings in hooks_of(config):
        if kind_of(settings) == 'WeightProjectionHook' and f'{path}.source' not in missing:
            _check_hook(found, config, settings, student)


def _check_hook(found: Findings, config: Config, settings: Mapping[str, Any], student: nn.Module) -> None:
    hook = found.attempt(WHERE, 'the hook to build', HOOKS.build, copy.deepcopy(dict(settings)))
    if hook is None:
        return
    if not config.get('resume', False):
        found.attempt(WHERE, 'no other weights', hook.check_load_from, config.get('load_from'))
    if '://' in hook.source and not Path(hook.source).exists():
        found.note(WHERE, f'not checked: {hook.source}, which is downloaded when training begins.')
        return
    report = found.attempt(WHERE, f'a plan from {hook.source}', hook.plan, student)
    if report is not None:
        shares = ', '.join(f'{percent(share)} of the {unit}' for unit, share in report.coverage.items())
        found.note(WHERE, f'{hook.target or "the model"} from {hook.source}: {shares} loaded.')
        for note in report.plan.notes:
            found.note(WHERE, f'{note}.')
