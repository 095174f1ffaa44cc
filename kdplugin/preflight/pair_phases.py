"""Do the phases of a distillation's weights do what they are written for: begin, end, and in which unit?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.distill.schedules import Phase, Schedule, parse_schedule
from kdplugin.errors import ConfigError
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.run_length import RunLength


def check_phases(found: Findings, config: Config) -> None:
    """Every begin and end of a phase has an effect, in the unit that it is written in."""
    model, length = config.get('model'), RunLength.of(config)
    if not isinstance(model, Mapping) or not is_distillation(model):
        return
    for path, value in _written(model):
        try:
            schedule = parse_schedule(value, path)
        except ConfigError:  # said by the engine's own checks
            continue
        _check_ends(found, path, value, schedule, length)
        _check_unit(found, path, schedule, length)


def _written(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield path and value of every weight that is a schedule."""
    places: list[tuple[str, Any]] = [(f'model.{key}', model.get(key)) for key in ('alpha', 'task_weight')]
    for key in ('pairs', 'teachers'):
        entries = model.get(key)
        for name, entry in entries.items() if isinstance(entries, Mapping) else ():
            if isinstance(entry, Mapping):
                places.append((f'model.{key}.{name}.weight', entry.get('weight')))
    yield from ((path, value) for path, value in places if isinstance(value, Mapping | list | tuple) and value)


def _check_ends(found: Findings, path: str, value: Any, schedule: Schedule, length: RunLength | None) -> None:
    """A constant has no begin that nothing is before, and no end that nothing follows."""
    first, last = schedule.phases[0], schedule.phases[-1]
    paths = [path] if isinstance(value, Mapping) else [f'{path}.{number}' for number in range(len(schedule.phases))]
    unit, last_unit = (', by_epoch=True' if phase.by_epoch else '' for phase in (first, last))
    if first.kind == 'constant' and first.begin and first.start:
        found.warning(
            f'{paths[0]}.begin',
            f'Expected another value before the constant {first.start:g} but got begin={first.begin} alone, which has '
            f"no effect. For 0 until then write [dict(kind='constant', start=0, end={first.begin}{unit}), "
            f"dict(kind='constant', start={first.start:g}{unit})].",
        )
    if last.kind == 'constant' and last.end is not None and last.start and not _is_last(last, length):
        stop = f'stop_after={last.end}{last_unit} beside weight' if '.pairs.' in path else 'a phase of 0 after it'
        found.warning(
            f'{paths[-1]}.end',
            f'Expected another value after the constant {last.start:g} but got end={last.end} alone, which has no '
            f'effect. For 0 from then on write {stop}.',
        )


def _is_last(phase: Phase, length: RunLength | None) -> bool:
    """Tell whether a phase ends with the training, which makes its end a mere word."""
    whole = length.end(phase.by_epoch) if length is not None else None
    return whole is not None and phase.end is not None and phase.end >= whole


def _check_unit(found: Findings, path: str, schedule: Schedule, length: RunLength | None) -> None:
    epochs = length.epochs if length is not None else None
    if epochs is None or schedule.constant or any(phase.by_epoch for phase in schedule.phases):
        return
    counts = [count for phase in schedule.phases for count in (phase.begin, phase.end) if count]
    if counts and max(counts) <= epochs:
        found.warning(
            path,
            f'Expected a schedule in iterations but got {schedule}, over before the first epoch of {epochs} is. Write '
            'by_epoch=True in it if these are epochs.',
        )


def check_idle_weights(found: Findings, config: Config) -> None:
    """No teacher is left out by its weight, and no pair by a schedule that is 0 throughout."""
    model = config.get('model')
    if not isinstance(model, Mapping) or not is_distillation(model):
        return
    teachers, pairs = model.get('teachers'), model.get('pairs')
    for name, entry in teachers.items() if isinstance(teachers, Mapping) else ():
        weight = entry.get('weight') if isinstance(entry, Mapping) else None
        if weight is not None and _is_idle(weight):
            found.warning(
                f'model.teachers.{name}.weight',
                f'Expected a teacher that teaches but got weight {weight!r}. Its pairs do nothing: raise it, or remove '
                'the teacher.',
            )
    for name, entry in pairs.items() if isinstance(pairs, Mapping) else ():
        weight = entry.get('weight') if isinstance(entry, Mapping) else None
        if isinstance(weight, Mapping | list | tuple) and _is_idle(weight):
            found.warning(
                f'model.pairs.{name}.weight',
                'Expected a schedule above 0 somewhere but got one of 0 throughout. The pair does nothing: correct '
                'start or stop.',
            )


def _is_idle(weight: Any) -> bool:
    try:
        return parse_schedule(weight, 'weight').peak == 0
    except ConfigError:
        return False
