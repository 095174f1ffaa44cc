"""Every typed dict of a config, with its path, the registries that its type is looked up in, and the scope in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mmengine.registry as roots
from mmengine.registry import Registry

from kdplugin.distill.model_config import is_distillation
from kdplugin.preflight.registries import ALL

Registries = tuple[Registry, ...]

RUNNER_PARTS: dict[str, Registries] = {
    'model': (roots.MODELS,),
    'data_preprocessor': (roots.MODELS,),
    'tta_model': (roots.MODELS,),
    'optim_wrapper': (roots.OPTIM_WRAPPERS,),
    'param_scheduler': (roots.PARAM_SCHEDULERS,),
    'default_hooks': (roots.HOOKS,),
    'custom_hooks': (roots.HOOKS,),
    'visualizer': (roots.VISUALIZERS,),
    'val_evaluator': (roots.METRICS, roots.EVALUATOR),
    'test_evaluator': (roots.METRICS, roots.EVALUATOR),
    'train_cfg': (roots.LOOPS,),
    'val_cfg': (roots.LOOPS,),
    'test_cfg': (roots.LOOPS,),
    'log_processor': (roots.LOG_PROCESSORS,),
    'model_wrapper_cfg': (roots.MODEL_WRAPPERS,),
    'train_dataloader': ALL,
    'val_dataloader': ALL,
    'test_dataloader': ALL,
}
"""Keys of a config that a Runner builds something from, and where it looks for the types."""

BELOW: dict[str, Registries] = {
    'dataset': (roots.DATASETS,),
    'datasets': (roots.DATASETS,),
    'pipeline': (roots.TRANSFORMS,),
    'switch_pipeline': (roots.TRANSFORMS,),
    'optimizer': (roots.OPTIMIZERS,),
    'vis_backends': (roots.VISBACKENDS,),
    'init_cfg': (roots.WEIGHT_INITIALIZERS,),
    'batch_sampler': (roots.DATA_SAMPLERS,),
}
"""Keys below which another registry is in charge, wherever they are."""

FOREIGN = ('Albu', 'Albumentations')
"""Transforms whose arguments name types of another library."""
ENGINE = ('pairs', 'teacher', 'teachers')
"""Keys of a distiller that the engine checks by itself."""


@dataclass(frozen=True)
class Typed:
    """A dict of a config that has a type.

    Args:
        path: dotted, such as 'model.backbone'.
        settings: the dict.
        registries: in which its type is looked up.
        scope: ``_scope_`` in force, None for the default scope.
        role: the key that it, or the list it stands in, is the value of.
        strict: its type is known by the ``registries`` or not at all; inside models others build parts too.
    """

    path: str
    settings: Mapping[str, Any]
    registries: Registries
    scope: str | None
    role: str
    strict: bool


def typed_parts(config: Mapping[str, Any]) -> Iterator[Typed]:
    """Yield the typed dicts of all parts that a Runner builds from, outer ones first."""
    for key, registries in RUNNER_PARTS.items():
        if key in config and config[key] is not None:
            yield from typed_below(config[key], key, registries)


def typed_below(
    node: Any, path: str, registries: Registries, scope: str | None = None, role: str | None = None, model: bool = False
) -> Iterator[Typed]:
    """Yield the typed dicts in a value at a path, itself included."""
    role = role or path.rpartition('.')[2]
    if isinstance(node, Mapping):
        scope = node.get('_scope_') or scope
        kind = node.get('type')
        if kind is not None:
            yield Typed(path, node, registries, scope, role, strict=not model)
            if str(getattr(kind, '__name__', kind)).rpartition('.')[2] in FOREIGN:
                return
        distiller = is_distillation(node)
        for key, value in node.items():
            if distiller and key in ENGINE:
                continue
            below, inside = _registries_below(str(key), path, registries, model)
            yield from typed_below(value, f'{path}.{key}', below, scope, str(key), inside)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for number, value in enumerate(node):
            yield from typed_below(value, f'{path}.{number}', registries, scope, role, model)


def _registries_below(key: str, path: str, registries: Registries, model: bool) -> tuple[Registries, bool]:
    """Return the registries for the value of a key, and whether it lies inside a model."""
    if key in BELOW:
        return BELOW[key], False
    if key == 'sampler' and path.endswith('dataloader'):
        return (roots.DATA_SAMPLERS,), False
    if registries in ((roots.TRANSFORMS,), (roots.WEIGHT_INITIALIZERS,)):
        return registries, False
    if path in ('default_hooks', 'visualizer') or (path.endswith('_evaluator') and key == 'metrics'):
        return registries, False
    if key == 'student' and path == 'model':
        return (roots.MODELS,), False
    return ALL, True
