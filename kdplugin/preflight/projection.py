"""Can the weights that training is to begin with be projected?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from kdplugin.preflight.findings import Findings
from kdplugin.registry import HOOKS
from kdplugin.weights.reports.report import percent

WHERE = 'custom_hooks'


def check_projection(found: Findings, config: Config, student: nn.Module) -> None:
    """The source of each ``WeightProjectionHook`` is there, its plan is possible, and it covers enough of the student.

    Args:
        student: as it is built; it stays as it is.
    """
    for settings in config.get('custom_hooks') or ():
        kind = settings.get('type') if isinstance(settings, Mapping) else None
        if str(getattr(kind, '__name__', kind)).rpartition('.')[2] == 'WeightProjectionHook':
            _check_hook(found, config, {'type': kind, **settings}, student)


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
