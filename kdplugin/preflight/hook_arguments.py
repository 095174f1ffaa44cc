"""Arguments of hooks that their ``__init__``, or the training much later, would refuse or pass over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.data import near_files
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.loss_settings import is_number
from kdplugin.preflight.pipelines import all_steps, pipelines_of
from kdplugin.weights.project import AUTO
from kdplugin.weights.projection.axis_groups import METHODS
from kdplugin.weights.projection.layers import WAYS


def check_hook_arguments(found: Findings, config: Config) -> None:
    """Projections can be made as they are described, and what is switched off in the last epochs was on."""
    for path, hook in hooks_of(config):
        if kind_of(hook) == 'WeightProjectionHook':
            _check_projection(found, path, hook)
        if kind_of(hook) == 'YOLOXModeSwitchHook':
            _check_skipped(found, config, path, hook)


def _check_projection(found: Findings, path: str, hook: Mapping[str, Any]) -> None:
    for key, known in (('method', METHODS), ('layers', WAYS)):
        value = hook.get(key)
        if isinstance(value, str) and value not in known:
            found.not_among(f'{path}.{key}', value, known)
    coverage = hook.get('min_coverage', 0.9)
    if not is_number(coverage) or not 0 <= coverage <= 1:
        meant = coverage / 100 if is_number(coverage) and 1 < coverage <= 100 else 0.9
        found.error(
            f'{path}.min_coverage', f'Expected a share from 0 to 1 but got {coverage!r}. Write min_coverage={meant:g}.'
        )
    layers = hook.get('layers')
    if isinstance(layers, list | tuple) and any(isinstance(one, bool) or not isinstance(one, int) for one in layers):
        found.error(f'{path}.layers', f'Expected indices of layers but got {list(layers)}. Write numbers from 0 on.')
    plan = hook.get('plan', AUTO)
    if isinstance(plan, str) and plan != AUTO and not Path(plan).is_file():
        found.error(
            f'{path}.plan',
            f"Expected plan='auto' or a file but {plan} does not exist.{near_files(plan)} Correct plan.",
        )


def _check_skipped(found: Findings, config: Config, path: str, hook: Mapping[str, Any]) -> None:
    """Transforms that are switched off by a name that none has stay on."""
    names = hook.get('skip_type_keys')
    kinds = sorted(
        {kind_of(step) for _, steps in pipelines_of(config, 'train_dataloader') for step in all_steps(steps)}
    )
    for name in names if isinstance(names, list | tuple) and kinds else ():
        near = did_you_mean(str(name), kinds)
        if name not in kinds and near:
            found.error(
                f'{path}.skip_type_keys',
                f'Expected transforms of the training but got {name!r}, which is none of them. It would stay on to the '
                f'end.{near}',
            )
