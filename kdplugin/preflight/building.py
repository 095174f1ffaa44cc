"""Do the parts around the model build: schedulers over the optimizer, and hooks?"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.registry import HOOKS, LOG_PROCESSORS, PARAM_SCHEDULERS
from torch import nn
from torch.optim import SGD

from kdplugin.preflight.config_tree import typed_below
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of
from kdplugin.preflight.rates import optimizer_of

EPOCH = 1000
"""Iterations of an epoch that schedulers are built for: how many there are depends on the data."""

STEPS = 2
"""Steps after which a scheduler has read all of its numbers."""


def check_schedulers_build(found: Findings, config: Config) -> None:
    """Every scheduler takes its settings; they step an optimizer of one number."""
    schedulers, flagged = config.get('param_scheduler'), {finding.where for finding in found.errors}
    rate = (optimizer_of(config) or {}).get('lr', 0.01)
    for part in typed_below(schedulers, 'param_scheduler', ()) if schedulers else ():
        if any(where.startswith(part.path) for where in flagged):
            continue
        optimizer = SGD(
            [nn.Parameter(nn.Linear(1, 1).weight)], lr=rate if isinstance(rate, float) else 0.01, momentum=0.9
        )
        given = dict(optimizer=optimizer, epoch_length=EPOCH)
        found.attempt(part.path, 'a scheduler', _build_scheduler, part.settings, given)


def _build_scheduler(settings: Mapping[str, object], given: Mapping[str, object]) -> object:
    """Build a scheduler and step it where it begins, since some of its numbers are not read before."""
    scheduler = PARAM_SCHEDULERS.build(copy.deepcopy(dict(settings)), default_args=dict(given))
    scheduler._global_step = max(getattr(scheduler, 'begin', 0), 1)
    for _ in range(STEPS):
        scheduler.step()
    return scheduler


def check_hooks_build(found: Findings, config: Config) -> None:
    """Every hook, and what makes the lines of the log, takes its settings."""
    flagged = {finding.where for finding in found.errors}
    log = config.get('log_processor')
    if isinstance(log, Mapping) and not any(where.startswith('log_processor') for where in flagged):
        settings = {'type': 'LogProcessor', **copy.deepcopy(dict(log))}
        found.attempt('log_processor', "the log's processor to build", LOG_PROCESSORS.build, settings)
    for path, hook in hooks_of(config):
        if not any(where.startswith(path) for where in flagged) and 'Projection' not in str(hook.get('type')):
            settings = {key: value for key, value in copy.deepcopy(dict(hook)).items() if key != 'priority'}
            if 'type' in settings:
                found.attempt(path, 'a hook', _build_hook, settings)


def _build_hook(settings: dict[str, object]) -> None:
    """Build a hook; one that asks for what the Runner makes first, as those that draw do, is not judged."""
    with contextlib.suppress(RuntimeError):
        HOOKS.build(settings)
