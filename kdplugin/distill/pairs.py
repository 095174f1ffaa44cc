"""A pair: a method that looks at student and teacher, and how much it counts."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from kdplugin.distill.calibration import Calibration
from kdplugin.distill.ground_truth import is_detector
from kdplugin.distill.methods import Method
from kdplugin.distill.schedules import Weight, check_count, check_number, parse_schedule
from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import MODELS as OWN_MODELS

ENGINE_KEYS = (
    'type', 'weight', 'warmup', 'stop_after', 'by_epoch', 'target_ratio', 'calibration_iters', 'on_nan', 'teacher',
)  # fmt: skip
"""Keys of a pair that the engine reads; all others are settings of its method."""
ON_NAN = ('stop', 'skip')
DEFAULT_TYPE = 'kdplugin.TapLoss'


@dataclass(frozen=True)
class Pair:
    """One distillation term.

    Args:
        name: as in the config; the term is logged as ``loss_kd_<name>``.
        method: computes its distance.
        weight: factor of the term over time, times what ``calibration`` finds.
        calibration: finds the factor from ``target_ratio``, if that is given.
        teacher: the name of its teacher.
        on_nan: 'stop' at a distance that is not finite, or 'skip' the term in that step.
    """

    name: str
    method: Method
    weight: Weight
    calibration: Calibration | None = None
    teacher: str = 'teacher'
    on_nan: str = 'stop'

    @property
    def student_taps(self) -> tuple[str, ...]:
        return self.method.student_taps

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return self.method.teacher_taps

    @property
    def how_much(self) -> str:
        """The weight as a person reads it."""
        if self.calibration is None:
            return str(self.weight)
        shape = str(self.weight).removeprefix('1')
        return f'{self.calibration.ratio:g} of the task, over {self.calibration.iterations} iterations{shape}'

    def __str__(self) -> str:
        """Return for example "pair 'low' ('backbone.layer1' and 'layer1')"."""
        sides = (', '.join(map(repr, taps)) for taps in (self.student_taps, self.teacher_taps))
        return f'pair {self.name!r} ({" and ".join(dict.fromkeys(sides))})'


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
    calibration = None
    if 'target_ratio' in entry:
        calibration = Calibration(name, float(entry['target_ratio']), entry.get('calibration_iters', 20))
    return Pair(
        name, build_method(name, entry), parse_weight(name, entry), calibration,
        entry.get('teacher', 'teacher'), entry.get('on_nan', 'stop'),
    )  # fmt: skip


def parse_weight(name: str, entry: Mapping[str, Any]) -> Weight:
    """Read what a pair's config says about its weight over time.

    Raises:
        ConfigError: says what is wrong.
    """
    owner = f'pair {name!r}'
    counts = {key: check_count(entry[key], f'{key} of {owner}') for key in ('warmup', 'stop_after') if key in entry}
    if 'by_epoch' in entry and not counts:
        raise ConfigError(
            f'Expected warmup or stop_after beside by_epoch in {owner} but got neither. A schedule has a by_epoch of '
            'its own: weight=dict(kind=..., by_epoch=True).'
        )
    return Weight(parse_schedule(entry.get('weight', 1.0), owner), **counts, by_epoch=bool(entry.get('by_epoch')))


def check_calibration(name: str, entry: Mapping[str, Any]) -> None:
    """Raise ConfigError if a pair's config asks for a calibration in a way that cannot be followed."""
    owner = f'pair {name!r}'
    if 'target_ratio' not in entry:
        if 'calibration_iters' in entry:
            raise ConfigError(f'Expected a target_ratio beside calibration_iters in {owner} but got none. Add it.')
        return
    if 'weight' in entry:
        raise ConfigError(f'Expected either weight or target_ratio in {owner} but got both. Keep one of them.')
    if check_number(entry['target_ratio'], f'target_ratio of {owner}') == 0:
        raise ConfigError(f'Expected a target_ratio > 0 in {owner} but got 0. Write weight=0 for no term.')
    if check_count(entry.get('calibration_iters', 20), f'calibration_iters of {owner}') == 0:
        raise ConfigError(f'Expected calibration_iters > 0 in {owner} but got 0. 20 is the default.')


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
    if name == 'task':
        yield ConfigError("Expected another name than 'task' for a pair: kd_task is the student's part. Rename it.")
    with contextlib.suppress(ConfigError):
        known = [*setting_names(method_class(name, entry)), *ENGINE_KEYS]
        for key in sorted(entry.keys() - set(known)):
            yield ConfigError(f'Expected keys {known} in pair {name!r} but got {key!r}.{did_you_mean(key, known)}')
    for check in (parse_weight, check_calibration):
        yield from complaint(check, name, entry)
    if entry.get('on_nan', 'stop') not in ON_NAN:
        yield ConfigError(f'Expected on_nan to be one of {list(ON_NAN)} in pair {name!r} but got {entry["on_nan"]!r}.')


def complaint(check: Callable[..., Any], *args: Any) -> Iterator[ConfigError]:
    """Yield what a check raises, if it does."""
    try:
        check(*args)
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


def check_needs(pair: Pair, student: nn.Module) -> None:
    """Raise ConfigError if a pair needs boxes and the student's batches have none."""
    if 'boxes' in pair.method.needs and not is_detector(student):
        raise ConfigError(
            f'Expected a detector of mmdet as student of pair {pair.name!r}, because {pair.method.label} needs boxes, '
            f'but got {type(student).__name__}. Choose another method.'
        )
