"""Where OneCycleLR is in charge the optimizer's rate is not read: is the rate written where it counts?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.config_tree import typed_below
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.rates import optimizer_of


def check_one_cycle(found: Findings, config: Config) -> None:
    """The optimizer's rate is the scheduler's, so that nobody changes the one that is not read."""
    schedulers, scaling = config.get('param_scheduler'), config.get('auto_scale_lr')
    lr = (optimizer_of(config) or {}).get('lr')
    for part in typed_below(schedulers, 'param_scheduler', ()) if schedulers else ():
        peak = part.settings.get('eta_max')
        if not kind_of(part.settings).startswith('OneCycle') or not isinstance(peak, int | float):
            continue
        if isinstance(lr, int | float) and not _is_same(lr, peak, part.settings):
            found.warning(
                'optim_wrapper.optimizer.lr',
                f'Expected the rate of OneCycleLR, which alone counts, eta_max={peak:g}, but got lr={lr:g}. It is not '
                'read: set eta_max to the rate that is meant, and lr to the same.',
            )
        if isinstance(scaling, Mapping) and scaling.get('enable') is True:
            found.warning(
                'auto_scale_lr.enable',
                'Expected a scheduler that keeps the scaled rate but got OneCycleLR, which takes eta_max whatever lr '
                f'is. It has no effect: scale eta_max={peak:g} by hand, and write enable=False.',
            )


def _is_same(lr: float, peak: float, settings: Mapping[str, Any]) -> bool:
    """Tell whether a rate is that of the middle or of the beginning of the cycle."""
    factor = settings.get('div_factor', 25.0)
    return math.isclose(lr, peak, rel_tol=0.01) or (
        isinstance(factor, int | float) and math.isclose(lr * factor, peak, rel_tol=0.01)
    )
