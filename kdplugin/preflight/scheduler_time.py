"""Do schedulers count what their numbers are written in, and do they fill the training rather than a part of it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, TypeGuard

from mmengine.config import Config

from kdplugin.preflight.config_tree import Typed, typed_below
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.run_length import RunLength, is_count, is_whole, unit

HALF = 0.5
"""Share of a training that a warm-up takes at most, and that a last fall of the rate is not before."""
LATE = 0.75
"""Share of a training before which a scheduler that goes down does not end."""
GONE = 1e-6
"""Factor of a rate at which nothing learns."""
FEW = 100
"""Iterations that an epoch has at least, for a decay that is counted in iterations by mistake."""


def check_scheduler_time(found: Findings, config: Config) -> None:
    """Schedulers count in the unit that they are written in, over the whole training and each step once."""
    schedulers, length = config.get('param_scheduler'), RunLength.of(config)
    parts = list(typed_below(schedulers, 'param_scheduler', ())) if schedulers else []
    for part in parts:
        _check_conversion(found, part)
        _check_milestones(found, part, length)
        _check_within(found, part)
        if length is not None and not _counts_iterations(found, part, length):
            _check_warmup(found, part, length)
            _check_decay(found, part, length)
            _check_last_step(found, part, length)
            if not any(_follows(other, part) for other in parts if other is not part):
                _check_early_end(found, part, length)
    _check_twice(found, parts)


def by_epoch(settings: Mapping[str, Any]) -> bool:
    return bool(settings.get('by_epoch', True))


def _check_conversion(found: Findings, part: Typed) -> None:
    if part.settings.get('convert_to_iter_based') and not by_epoch(part.settings):
        found.error(
            f'{part.path}.convert_to_iter_based',
            'Expected by_epoch=True beside convert_to_iter_based but got by_epoch=False. Only a scheduler in epochs '
            'can be converted: remove convert_to_iter_based.',
        )


def _check_milestones(found: Findings, part: Typed, length: RunLength | None) -> None:
    steps = part.settings.get('milestones')
    if not isinstance(steps, list | tuple) or not kind_of(part.settings).startswith('MultiStep'):
        return
    whole = length.end(by_epoch(part.settings)) if length is not None else None
    cure = f'For {whole} {unit(by_epoch(part.settings))}s write {_usual(whole)}.' if whole else 'Write [8, 11] for 12.'
    wrong = [step for step in steps if not is_whole(step)]
    if wrong:
        found.error(
            f'{part.path}.milestones',
            f'Expected whole numbers, counted from the beginning, but got {wrong}. The rate never falls there. {cure}',
        )
    elif not steps:
        found.error(f'{part.path}.milestones', f'Expected milestones but got none. The rate never falls. {cure}')


def _check_within(found: Findings, part: Typed) -> None:
    """A warm-up arrives at the rate itself, and milestones lie before the scheduler ends."""
    settings, end = part.settings, part.settings.get('end')
    first, last = settings.get('start_factor', 1 / 3), settings.get('end_factor', 1.0)
    if kind_of(settings).startswith('Linear') and _less(first, last) and _less(last, 1.0):
        found.warning(
            f'{part.path}.end_factor',
            f'Expected a warm-up to the rate itself but got end_factor={last:g}, at which the rate stays. Leave '
            'end_factor out.',
        )
    steps = settings.get('milestones')
    late = [step for step in steps if is_count(end) and step >= end] if _all_counts(steps) else []
    if late:
        found.warning(
            f'{part.path}.milestones',
            f'Expected milestones before end={end} but got {late}, where the scheduler is over. Raise end.',
        )


def _usual(whole: int) -> list[int]:
    """Return the milestones of the usual recipe, [8, 11] of 12."""
    return [whole * 8 // 12, whole * 11 // 12]


def _counts_iterations(found: Findings, part: Typed, length: RunLength) -> bool:
    """Say so where a scheduler in iterations has numbers that are epochs; True if it has."""
    settings, epochs = part.settings, length.epochs
    if by_epoch(settings) or epochs is None:
        return False
    kind = kind_of(settings)
    for key in ('milestones', 'step_size', 'T_max', 'end'):
        value = settings.get(key)
        last = max(value, default=None) if key == 'milestones' and _all_counts(value) else value
        if is_count(last) and 0 < last <= epochs and (key != 'end' or not kind.startswith(('MultiStep', 'Step'))):
            _say_epochs(found, part, f'{key}={value}', epochs)
            return True
    gamma = settings.get('gamma')
    if kind.startswith('Exponential') and _is_factor(gamma) and gamma**FEW < GONE:
        _say_epochs(found, part, f'gamma={gamma}', epochs)
        return True
    return False


def _say_epochs(found: Findings, part: Typed, what: str, epochs: int) -> None:
    message = (
        f'Expected a number of epochs in by_epoch=True but got {what} with by_epoch=False. In iterations that is over '
        f'before the first of {epochs} epochs ends: write by_epoch=True.'
    )
    rises = kind_of(part.settings).startswith(('Linear', 'Constant'))
    found.add('warning' if rises else 'error', f'{part.path}.by_epoch', message)


def _all_counts(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and all(map(is_count, value))


def _is_factor(value: Any) -> TypeGuard[float]:
    return isinstance(value, float) and 0 < value < 1


def _check_warmup(found: Findings, part: Typed, length: RunLength) -> None:
    settings = part.settings
    whole, begin = length.end(by_epoch(settings)), settings.get('begin', 0)
    if not kind_of(settings).startswith('Linear') or not whole or not is_count(begin):
        return
    end, first, last = settings.get('end'), settings.get('start_factor', 1 / 3), settings.get('end_factor', 1.0)
    if not isinstance(first, int | float) or not isinstance(last, int | float) or first >= last:
        return
    steps = (min(end, whole) if is_count(end) else whole) - begin
    if steps > HALF * whole:
        found.warning(
            f'{part.path}.end',
            f'Expected a warm-up that is short beside {length} but got {steps} {unit(by_epoch(settings))}s of it. The '
            'rate is low for most of the training: lower end, to 500 iterations for example.',
        )


def _check_decay(found: Findings, part: Typed, length: RunLength) -> None:
    """A rate that is multiplied every few steps is not gone long before the end."""
    settings, gamma = part.settings, part.settings.get('gamma', 0.1)
    whole, kind = length.end(by_epoch(settings)), kind_of(settings)
    step = settings.get('step_size') if kind.startswith('Step') else 1 if kind.startswith('Exponential') else None
    if whole is None or not is_count(step) or step <= 0 or not _is_factor(gamma):
        return
    if gamma ** (HALF * whole // step) < GONE:
        found.error(
            f'{part.path}.{"gamma" if kind.startswith("Exponential") else "step_size"}',
            f'Expected a rate that lasts {length} but got gamma={gamma:g} every {step} {unit(by_epoch(settings))}s. It '
            'is below a millionth before half of them: '
            + (f'write step_size={_usual(whole)[0]}.' if step > 1 else f'write gamma={0.01 ** (1 / whole):.6g}.'),
        )


def _check_last_step(found: Findings, part: Typed, length: RunLength) -> None:
    """The last milestone is not long before the end, as it is where the training was made longer and it was not."""
    settings, steps = part.settings, part.settings.get('milestones')
    whole = length.end(by_epoch(settings))
    if whole is None or not kind_of(settings).startswith('MultiStep') or not _all_counts(steps) or not steps:
        return
    last = max(steps)
    if 0 < last < HALF * whole:
        found.warning(
            f'{part.path}.milestones',
            f'Expected the last milestone near the end of {length} but got {last}. The rate stays at its lowest for '
            f'most of the training: write {_usual(whole)}, and set end to {whole}.',
        )


def _follows(other: Typed, part: Typed) -> bool:
    """Tell whether another scheduler goes on where one ends, or beside it in another unit."""
    end, begin = part.settings.get('end'), other.settings.get('begin', 0)
    same = by_epoch(other.settings) == by_epoch(part.settings)
    return is_count(end) and is_count(begin) and (begin >= end if same else begin > 0)


def _check_early_end(found: Findings, part: Typed, length: RunLength) -> None:
    settings, kind = part.settings, kind_of(part.settings)
    whole, end = length.end(by_epoch(settings)), settings.get('end')
    falls = kind.startswith(('Poly', 'Cosine')) or (
        kind.startswith('Linear') and _less(settings.get('end_factor', 1.0), settings.get('start_factor', 1 / 3))
    )
    if falls and whole and is_count(end) and 0 < end < LATE * whole:
        period = ', and T_max with it' if 'T_max' in settings else ''
        found.warning(
            f'{part.path}.end',
            f'Expected a scheduler as long as the training of {length} but got end={end}. The rate stays at its lowest '
            f'from there on: set end to {whole}{period}.',
        )


def _less(value: Any, other: Any) -> bool:
    return isinstance(value, int | float) and isinstance(other, int | float) and value < other


def _check_twice(found: Findings, parts: list[Typed]) -> None:
    """No two schedulers of a kind begin together, whose factors are multiplied."""
    for one, other in combinations(parts, 2):
        if _place(one) == _place(other):
            begin = one.settings.get('begin', 0)
            found.warning(
                other.path,
                f'Expected one {kind_of(one.settings)} from step {begin} on but got {one.path} besides. Their factors '
                'are multiplied: remove one, or correct begin.',
            )


def _place(part: Typed) -> tuple[Any, ...]:
    """Return what two schedulers have in common that are multiplied: optimizer, kind, number and beginning."""
    settings = part.settings
    begin, number = settings.get('begin', 0), settings.get('param_name')
    return part.path.rpartition('.')[0], kind_of(settings), number, by_epoch(settings), begin
