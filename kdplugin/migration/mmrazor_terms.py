"""MMRazor's recorders, connectors and loss_forward_mappings as pairs of taps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdplugin.errors import ConfigError, TapError
from kdplugin.migration.mmrazor_connectors import through_connector
from kdplugin.migration.mmrazor_losses import Converted, NoCounterpartError, convert_loss, known_loss
from kdplugin.migration.notes import Note
from kdplugin.migration.observe import Call, Observation
from kdplugin.module_paths import did_you_mean


@dataclass(frozen=True)
class Record:
    """What one side of a loss sees: a tensor of one call of a module, or all that the call put out.

    Args:
        path: of the module.
        record: number of the call.
        index: of the tensor among those of the call; None for the call's whole output.
        connector: config of what the tensor goes through before the loss.
    """

    path: str
    record: int = 0
    index: int | None = None
    connector: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Term:
    """One distillation loss of MMRazor: its name, its config and what both sides see."""

    name: str
    loss: Mapping[str, Any]
    student: Record
    teacher: Record


def read_terms(distiller: Mapping[str, Any], notes: list[Note]) -> list[Term]:
    """Read the terms of a ``ConfigurableDistiller``; what cannot be said here becomes a note.

    Raises:
        ConfigError: a mapping names a recorder, a connector or a loss that is not there.
    """
    terms = []
    losses = distiller.get('distill_losses') or {}
    for name, mapping in (distiller.get('loss_forward_mappings') or {}).items():
        if name not in losses:
            raise ConfigError(f'Expected a loss of distill_losses but got {name!r}.{did_you_mean(name, losses)}')
        if 'loss' not in name:
            notes.append(Note('left out', name, "MMRazor logs it and does not train it: its name lacks 'loss'."))
            continue
        try:
            student, teacher = _sides(name, mapping, distiller)
        except NoCounterpartError as error:
            notes.append(Note('no counterpart', name, str(error)))
        else:
            terms.append(Term(name, losses[name], student, teacher))
    unused = sorted(losses.keys() - (distiller.get('loss_forward_mappings') or {}).keys())
    if unused:
        notes.append(
            Note('left out', ', '.join(unused), 'no loss_forward_mappings: MMRazor does not compute it either.')
        )
    return terms


def _sides(name: str, mapping: Mapping[str, Any], distiller: Mapping[str, Any]) -> tuple[Record, Record]:
    sides = {from_student: [one for one in mapping.values() if one['from_student'] is from_student]
             for from_student in (True, False)}  # fmt: skip
    if [len(side) for side in sides.values()] != [1, 1]:
        raise NoCounterpartError(
            f'Expected one tensor of the student and one of the teacher but {name} takes {list(mapping)}. Labels are '
            'handed to the losses that need them; a third tensor has no place.'
        )
    return _record(sides[True][0], distiller, 'student'), _record(sides[False][0], distiller, 'teacher')


def _record(entry: Mapping[str, Any], distiller: Mapping[str, Any], owner: str) -> Record:
    recorders = distiller.get(f'{owner}_recorders') or {}
    key = entry['recorder']
    if key not in recorders:
        raise ConfigError(f'Expected a recorder of {owner}_recorders but got {key!r}.{did_you_mean(key, recorders)}')
    kind = str(recorders[key]['type']).removeprefix('mmrazor.')
    if kind not in ('ModuleOutputs', 'ModuleOutputsRecorder'):
        raise NoCounterpartError(
            f'Expected a recorder of type ModuleOutputs but {key!r} is {kind}. Taps see what modules put out: name the '
            'module whose output it is.'
        )
    connector = None
    if entry.get('connector') is not None:
        connectors = distiller.get('connectors') or {}
        if entry['connector'] not in connectors:
            raise ConfigError(
                f'Expected one of the connectors but got {entry["connector"]!r}.'
                f'{did_you_mean(entry["connector"], connectors)}'
            )
        connector = connectors[entry['connector']]
    if entry.get('connector_idx') is not None:
        raise NoCounterpartError('Expected a connector with one output but got connector_idx. Write the pair by hand.')
    return Record(recorders[key]['source'], entry.get('record_idx') or 0, entry.get('data_idx'), connector)


def pairs_of(
    terms: Sequence[Term],
    student: Observation,
    teacher: Observation,
    batch: int,
    notes: list[Note],
) -> dict[str, dict[str, Any]]:
    """Return the pairs that say what the terms say; what cannot be said becomes a note.

    Terms that differ in nothing but the level, and together see all that a module puts out, become one pair.

    Args:
        terms: from ``read_terms``.
        student: a run of the student.
        teacher: a run of the teacher.
        batch: images in a training batch on one device.
        notes: what there is to tell; appended to.
    """
    pairs: dict[str, dict[str, Any]] = {}
    runs = Runs(student, teacher, batch)
    for group in _groups(terms, student, teacher):
        for part in _alike(group, runs):
            try:
                name, pair = _pair(part, runs, notes)
            except (NoCounterpartError, TapError) as error:
                notes.append(Note('no counterpart', ', '.join(term.name for term in part), str(error)))
                continue
            while name in pairs:
                name += '_2'
            pairs[name] = pair
    return pairs


@dataclass(frozen=True)
class Runs:
    """A run of both models, and how many images a training batch has on one device."""

    student: Observation
    teacher: Observation
    batch: int


def _alike(group: list[Term], runs: Runs) -> list[list[Term]]:
    """Split a group whose losses have other factors on other levels, or none."""
    try:
        factors = {_converted(term, runs).factor for term in group}
    except (NoCounterpartError, TapError):
        return [group]
    return [group] if len(factors) == 1 else [[term] for term in group]


def _groups(terms: Sequence[Term], student: Observation, teacher: Observation) -> Iterator[list[Term]]:
    """Yield terms that become one pair."""
    left = list(terms)
    while left:
        first = left[0]
        alike = [term for term in left if _but_level(term) == _but_level(first)]
        if len(alike) < 2 or not _whole(alike, student, teacher):
            alike = [first]
        yield alike
        left = [term for term in left if term not in alike]


def _but_level(term: Term) -> tuple[Any, ...]:
    sides = term.student, term.teacher
    return dict(term.loss), *((side.path, side.connector, side.index is None) for side in sides)


def _whole(terms: Sequence[Term], student: Observation, teacher: Observation) -> bool:
    """Tell whether terms see every tensor of one module on both sides, level by level, and nothing else."""
    for side, observation in (('student', student), ('teacher', teacher)):
        records: list[Record] = [getattr(term, side) for term in terms]
        calls = observation.calls[records[0].path]
        if records[0].connector is not None:
            return False
        every = [
            (n, None if records[0].index is None else i) for n, c in enumerate(calls) for i in range(len(c.tensors))
        ]
        if [(record.record, record.index) for record in records] != every:
            return False
    return True


def _pair(group: Sequence[Term], runs: Runs, notes: list[Note]) -> tuple[str, dict[str, Any]]:
    term = group[0]
    taps, levels = _taps(term, runs) if len(group) == 1 else ((term.student.path, term.teacher.path), len(group))
    where = dict(tap=taps[0]) if taps[0] == taps[1] else dict(student_tap=taps[0], teacher_tap=taps[1])
    converted = _converted(term, runs)
    weight = float(f'{converted.factor * levels:.12g}')  # 2e-5 * 69888 is not 1.3977600000000001
    name = _pair_name([one.name for one in group])
    why = [converted.why] if converted.why else []
    if levels > 1:
        why.append(f'sum over {levels} levels, here their mean: times {levels}')
    old = f'{", ".join(one.name for one in group)}: {_settings_text(term.loss)}'
    new = f'pair {name!r} at {" and ".join(where.values())}, weight {weight:g}'
    notes.append(Note('converted' if why else 'kept', name, '; '.join([f'{old} is {new}', *why]) + '.'))
    if converted.adapter:
        kind, message = converted.adapter
        notes.append(Note(kind, name, message))
    first = {key: converted.settings[key] for key in ('type',) if key in converted.settings}
    return name, {**first, **where, **converted.settings, 'weight': weight}


def _pair_name(names: Sequence[str]) -> str:
    """Return a pair name that does not contain 'loss', which mmengine would add up twice."""
    plain = [re.sub(r'_?loss_?', '_', name.replace('.', '_')).strip('_') or 'pair' for name in names]
    return plain[0] if len(plain) == 1 else re.sub(r'[_\d]+$', '', plain[0]) or 'pair'


def _taps(term: Term, runs: Runs) -> tuple[tuple[str, str], int]:
    """Return the taps of one term and how many tensors it sees."""
    ours, one = _tap(term.student, runs.student, 'student')
    theirs, other = _tap(term.teacher, runs.teacher, 'teacher')
    if one != other or (one > 1 and _kind(term.loss) != 'PKDLoss'):
        raise NoCounterpartError(
            f'Expected as many tensors of both sides as {_kind(term.loss)} takes but {term.student.path!r} gives '
            f'{one} and {term.teacher.path!r} gives {other}. Correct data_idx.'
        )
    return (ours, theirs), one


def _tap(record: Record, observation: Observation, owner: str) -> tuple[str, int]:
    call = call_of(record, observation, owner)
    calls = observation.calls[record.path]
    if len(calls) == 1 and (record.index is None or len(call.tensors) == 1):
        return record.path, len(call.tensors)
    single = record.index is not None or len(call.tensors) == 1
    found = observation.only_output(call, record.index or 0) if single else None
    if found is None:
        raise NoCounterpartError(
            f'Expected a module of the {owner} that puts out tensor {record.index or 0} of call {record.record} of '
            f'{record.path!r}, and nothing else, but there is none. Distil all its levels alike, or other layers.'
        )
    return found, 1


def call_of(record: Record, observation: Observation, owner: str) -> Call:
    """Return the call that a record names.

    Raises:
        TapError: there are fewer calls, or fewer tensors in it.
    """
    calls = observation.calls[record.path]
    if record.record >= len(calls) or (record.index or 0) >= len(calls[record.record].tensors):
        raise TapError(
            f'Expected call {record.record} of {record.path!r} of the {owner} with tensor {record.index or 0} but it '
            f'runs {len(calls)} times. Correct record_idx or data_idx.'
        )
    return calls[record.record]


def _converted(term: Term, runs: Runs) -> Converted:
    known_loss(term.loss)
    if term.teacher.connector is not None:
        raise NoCounterpartError(
            f'Expected the teacher as it is but {term.name} sees it through {_kind(term.teacher.connector)}. Adapters '
            'belong to the student here; choose a loss that compares the plain maps.'
        )
    seen = call_of(term.student, runs.student, 'student').tensors[term.student.index or 0]
    sizes = (runs.batch, *seen.shape[1:])
    if term.student.connector is None:
        return convert_loss(term.loss, sizes)
    return through_connector(term.loss, term.student.connector, sizes)


def _kind(settings: Any) -> str:
    return str(settings.get('type')).removeprefix('mmrazor.') if isinstance(settings, Mapping) else 'several modules'


def _settings_text(loss: Mapping[str, Any]) -> str:
    values = ', '.join(f'{key}={value!r}' for key, value in loss.items() if key not in ('type', '_scope_'))
    return f'{_kind(loss)}({values})'
