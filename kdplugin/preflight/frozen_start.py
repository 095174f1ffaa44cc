"""Is what rests worth resting? Random weights that are never trained stay noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of
from kdplugin.preflight.models import hub_files, pretrained_files, student_path

CURE = 'begin with weights (init_cfg, load_from, kdplugin.WeightProjectionHook).'


def check_frozen_start(found: Findings, config: Config) -> None:
    """Nothing that the config freezes begins, as everything else does, with random numbers."""
    model = config.get('model')
    if not isinstance(model, Mapping):
        return
    distils = is_distillation(model)
    student = model.get('student') if distils else model
    if not isinstance(student, Mapping) or _has_weights(config, student):
        return
    patterns = model.get('frozen') if distils else None
    if patterns:
        found.warning(
            'model.frozen',
            f'Expected trained weights to freeze but {patterns} begin with random ones. Leave out frozen, or {CURE}',
        )
    for path, key, value in _resting(student, student_path(config)):
        cure = f'Write {key}={-1 if key == "frozen_stages" else False}, or {CURE}'
        found.warning(
            f'{path}.{key}',
            f'Expected trained weights beside {key}={value} but there are none: random layers would rest. {cure}',
        )


def _has_weights(config: Config, student: Mapping[str, Any]) -> bool:
    """Tell whether any weights are loaded into a student, whichever."""
    return (
        config.get('load_from') is not None
        or bool(config.get('resume'))
        or any(hook.get('source') for _, hook in hooks_of(config))
        or any(True for _ in (*pretrained_files(student), *hub_files(student)))
        or _names_a_checkpoint(student)
    )


def _names_a_checkpoint(settings: Any) -> bool:
    if isinstance(settings, Mapping):
        return bool(settings.get('checkpoint')) or any(_names_a_checkpoint(value) for value in settings.values())
    return isinstance(settings, list | tuple) and any(_names_a_checkpoint(value) for value in settings)


def _resting(settings: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    """Yield the path, key and value of everything by which a backbone rests."""
    if not isinstance(settings, Mapping):
        return
    stages = settings.get('frozen_stages')
    if isinstance(stages, int) and not isinstance(stages, bool) and stages >= 0:
        yield path, 'frozen_stages', stages
    if settings.get('norm_eval') is True:
        yield path, 'norm_eval', True
    for key, value in settings.items():
        yield from _resting(value, f'{path}.{key}')
