"""Where a config's type is looked up, as mmengine would, without building anything."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mmengine.registry as roots
from mmengine.registry import DefaultScope, Registry

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.quiet import logging_from

ALL: tuple[Registry, ...] = (
    roots.MODELS, roots.TASK_UTILS, roots.TRANSFORMS, roots.DATASETS, roots.DATA_SAMPLERS, roots.HOOKS, roots.METRICS,
    roots.EVALUATOR, roots.OPTIMIZERS, roots.OPTIM_WRAPPERS, roots.PARAM_SCHEDULERS, roots.VISUALIZERS,
    roots.VISBACKENDS, roots.LOOPS, roots.LOG_PROCESSORS, roots.WEIGHT_INITIALIZERS, roots.MODEL_WRAPPERS,
    roots.FUNCTIONS, roots.OPTIM_WRAPPER_CONSTRUCTORS, roots.STRATEGIES, roots.RUNNERS,
)  # fmt: skip
SCOPES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'kdplugin', 'torch')
"""Scopes that this project trains with; others are packages that a config names."""


def find_type(kind: Any, registries: Sequence[Registry], scope: str | None) -> Any:
    """Return what the first registry that knows a config's type has under it, None if none does.

    Args:
        kind: the value of ``type``: a name, with or without a scope, or a class or function.
        registries: roots to look in.
        scope: ``_scope_`` of the dict or of one around it; None is the default scope.
    """
    if not isinstance(kind, str):
        return kind if callable(kind) else None
    if not installed(kind):
        return None
    with logging_from(logging.CRITICAL):
        for root in registries:
            with root.switch_scope_and_registry(scope) as registry:
                try:
                    found = registry.get(kind)
                except Exception:  # noqa: S112 - mmengine's own search for an object by its path raises anything
                    continue
            if found is not None and (inspect.isclass(found) or _by_name(kind) or _is_registered(found)):
                return found
    return None


def installed(kind: str) -> bool:
    """Tell whether a dotted type begins with a package that is there and has a registry; nothing is imported for it.

    mmengine takes 'os.system' for a type as well: it builds whatever a dotted name leads to. Such names are no types.
    """
    package, dot, _ = kind.partition('.')
    if not dot or package in SCOPES:
        return True
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    folders = spec.submodule_search_locations if spec is not None else None
    return any(
        (Path(folder) / 'registry.py').is_file() or (Path(folder) / 'registry').is_dir() for folder in folders or ()
    )


def _by_name(kind: str) -> bool:
    """Tell a name in a registry, 'ResNet' or 'mmdet.ResNet', from the path of an object."""
    return kind.count('.') < 2 and not kind.startswith('torch.')


def _is_registered(found: Any) -> bool:
    return any(found is value for root in ALL for child in _with_children(root) for value in child.module_dict.values())


def known_names(registry: Registry, scope: str | None) -> list[str]:
    """Return the names that a root registry knows: plain ones of the scope in force, those of others with a prefix."""
    scope = scope or current_scope()
    names: list[str] = []
    for child in _with_children(registry):
        with logging_from(logging.CRITICAL), contextlib.suppress(Exception):
            child.import_from_location()
        own = child.scope in (scope, registry.scope, 'mmengine', 'mmcv')
        names += [name if own else f'{child.scope}.{name}' for name in child.module_dict]
    return list(dict.fromkeys(names))


def _with_children(registry: Registry) -> Iterator[Registry]:
    yield registry
    for child in registry.children.values():
        yield from _with_children(child)


def current_scope() -> str:
    """Return the default scope in force."""
    scope = DefaultScope.get_current_instance()
    return scope.scope_name if scope is not None else 'mmengine'


def suggestion(kind: str, registries: Sequence[Registry], scope: str | None) -> str:
    """Return ' Did you mean ...?' for a type that no registry knows; the same name in another scope comes first."""
    last = kind.rpartition('.')[2]
    for package in SCOPES:
        with logging_from(logging.CRITICAL), contextlib.suppress(ImportError):
            importlib.import_module(f'{package}.registry')
    names = [name for registry in registries for name in known_names(registry, scope)]
    elsewhere = [name for name in names if name.rpartition('.')[2] == last and name != kind]
    if elsewhere:
        return f' Did you mean {" or ".join(map(repr, elsewhere[:3]))}?'
    return did_you_mean(kind, names) or did_you_mean(last, names)
