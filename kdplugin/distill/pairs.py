"""A pair: a method that looks at student and teacher, and how much it counts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.registry import MODELS

from kdplugin.distill.methods import Method
from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import MODELS as OWN_MODELS

ENGINE_KEYS = ('type', 'weight')
"""Keys of a pair that the engine reads; all others are settings of its method."""
DEFAULT_TYPE = 'kdplugin.TapLoss'


@dataclass(frozen=True)
class Pair:
    """One distillation term.

    Args:
        name: as in the config; the term is logged as ``loss_kd_<name>``.
        method: computes its distance.
        weight: factor of the term in the total.
    """

    name: str
    method: Method
    weight: float

    @property
    def student_taps(self) -> tuple[str, ...]:
        return self.method.student_taps

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return self.method.teacher_taps


def parse_pairs(config: Mapping[str, Any]) -> list[Pair]:
    """Read the ``pairs`` of a config.

    Raises:
        ConfigError: unknown or missing key, bad weight, a name that mmengine's loss sum would count twice.
    """
    return [parse_pair(name, dict(entry)) for name, entry in config.items()]


def parse_pair(name: str, entry: Mapping[str, Any]) -> Pair:
    """Read one pair; raises the first of ``pair_mistakes``, or what ``build_method`` raises."""
    for mistake in pair_mistakes(name, entry):
        raise mistake
    return Pair(name, build_method(name, entry), float(entry.get('weight', 1.0)))


def taps_of(entry: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the student's and the teacher's tap of a pair's config, None for one that is not there."""
    student, teacher = (entry.get(f'{side}_tap', entry.get('tap')) for side in ('student', 'teacher'))
    return student, teacher


def method_class(name: str, entry: Mapping[str, Any]) -> type[Method]:
    """Return the class that a pair's ``type`` names.

    Raises:
        ConfigError: there is none, or it is no method.
    """
    kind = entry.get('type', DEFAULT_TYPE)
    found = kind if isinstance(kind, type) else MODELS.get(str(kind))
    if not isinstance(found, type) or not issubclass(found, Method):
        methods = (key for key, value in OWN_MODELS.module_dict.items() if inspect.isclass(value))
        known = sorted(f'kdplugin.{key}' for key in methods if issubclass(OWN_MODELS.module_dict[key], Method))
        raise ConfigError(
            f'Expected a known type of pair {name!r} but got {kind!r}.{did_you_mean(str(kind), known)} '
            f'The types of kdplugin are {known}.'
        )
    return found


def pair_mistakes(name: str, entry: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield what is wrong with a pair's config, as far as its method need not be built to know it."""
    if 'loss' in name or '.' in name:
        yield ConfigError(
            f"Expected a pair name without 'loss' or a dot but got {name!r}. mmengine adds every logged name that "
            "contains 'loss' to the total. Rename the pair."
        )
    with contextlib.suppress(ConfigError):
        known = [*setting_names(method_class(name, entry)), *ENGINE_KEYS]
        for key in sorted(entry.keys() - set(known)):
            yield ConfigError(f'Expected keys {known} in pair {name!r} but got {key!r}.{did_you_mean(key, known)}')
    try:
        check_weight(entry.get('weight', 1.0), f'pair {name!r}')
    except ConfigError as error:
        yield error


def setting_names(method: type[Method]) -> list[str]:
    """Return the names of the settings of a method, those that it passes on to ``Method`` too."""
    names: dict[str, None] = {}
    for base in method.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(vars(base)['__init__']).parameters.values()
        names.update(dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [key for key in names if key not in ('self', 'name')]


def build_method(name: str, entry: Mapping[str, Any]) -> Method:
    """Build the method of a pair's config.

    Raises:
        ConfigError: an unknown type, or settings that the type refuses; unknown ones are ``pair_mistakes``.
    """
    method = method_class(name, entry)
    settings = {key: entry[key] for key in setting_names(method) if key in entry}
    try:
        return method(name, **settings)
    except TypeError as error:
        raise ConfigError(
            f'Expected settings that {method.__name__} takes in pair {name!r} but got {sorted(entry)}: {error}. '
            'Correct them.'
        ) from None


def check_weight(weight: Any, owner: str) -> float:
    """Return a weight as float, or raise ConfigError unless it is a number >= 0."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float('inf'):
        raise ConfigError(f'Expected a finite weight >= 0 in {owner} but got {weight!r}. Give a number.')
    return float(weight)
