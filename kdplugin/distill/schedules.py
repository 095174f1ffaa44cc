"""How a weight runs over time: phases one after the other, warm-up and an end, all computed from the counters alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean

KINDS = ('constant', 'linear', 'cosine')


@dataclass(frozen=True)
class Moment:
    """Where a training stands: finished iterations and epochs, and how many there will be.

    Iterations are forward passes, also under gradient accumulation, as the Runner counts them.

    Args:
        iteration: finished iterations.
        epoch: finished epochs; None where the training counts none.
        max_iters: of the whole training.
        max_epochs: of the whole training.
    """

    iteration: int
    epoch: int | None = None
    max_iters: int | None = None
    max_epochs: int | None = None

    def now(self, by_epoch: bool) -> int:
        """Return the counter of one unit.

        Raises:
            ConfigError: epochs are asked for and not counted.
        """
        if not by_epoch:
            return self.iteration
        if self.epoch is None:
            raise ConfigError(
                'Expected a training by epochs for a weight with by_epoch=True but it counts iterations alone. '
                'Write the schedule in iterations.'
            )
        return self.epoch

    def iterations(self, count: int, by_epoch: bool) -> float:
        """Return a number of iterations or epochs as iterations."""
        if not by_epoch:
            return count
        self.now(by_epoch)
        return count * self.last(False) / self.last(True)

    def last(self, by_epoch: bool) -> int:
        """Return where the training ends.

        Raises:
            ConfigError: nobody has said.
        """
        end = self.max_epochs if by_epoch else self.max_iters
        if end is None:
            raise ConfigError(
                'Expected to know how long the training takes, for a weight whose schedule has no end, but it is not '
                'known. Give the schedule an end.'
            )
        return end


@dataclass(frozen=True)
class Phase:
    """One part of a schedule, from ``start`` in its first step to ``stop`` in its last, as mmengine's LinearLR goes.

    Args:
        kind: 'constant' (``start`` throughout), 'linear' or 'cosine' (half a wave).
        start: value until ``begin``.
        stop: value from step ``end - 1`` on.
        begin: first iteration, or epoch.
        end: iteration, or epoch, that is no longer part of it; None is the end of the training.
        by_epoch: ``begin`` and ``end`` are epochs, within which the value stays the same.
    """

    kind: str
    start: float
    stop: float
    begin: int = 0
    end: int | None = None
    by_epoch: bool = False

    def value(self, moment: Moment) -> float:
        done = moment.now(self.by_epoch) - self.begin
        if self.kind == 'constant' or done < 0:
            return self.start
        steps = (moment.last(self.by_epoch) if self.end is None else self.end) - self.begin - 1
        if done >= steps:
            return self.stop
        progress = done / steps
        if self.kind == 'cosine':
            progress = (1 - math.cos(math.pi * progress)) / 2
        return self.start + (self.stop - self.start) * progress

    def __str__(self) -> str:
        """Return for example 'linear 0.7 to 0.6 from epoch 1'."""
        unit = 'epoch' if self.by_epoch else 'iteration'
        value = f'{self.start:g}' if self.kind == 'constant' else f'{self.kind} {self.start:g} to {self.stop:g}'
        begin = f' from {unit} {self.begin}' if self.begin else ''
        return f'{value}{begin}' + (f' until {unit} {self.end}' if self.end is not None else '')


@dataclass(frozen=True)
class Schedule:
    """A number over time: the value of the last phase that has begun, before that the first one's ``start``."""

    phases: tuple[Phase, ...]

    @property
    def constant(self) -> bool:
        """Whether it never changes, so that no one need count iterations."""
        return len(self.phases) == 1 and self.phases[0].kind == 'constant'

    @property
    def peak(self) -> float:
        return max(max(phase.start, phase.stop) for phase in self.phases)

    def value(self, moment: Moment | None, owner: str) -> float:
        """Return the value at a moment.

        Raises:
            ConfigError: it changes over time and nobody has said what time it is.
        """
        if self.constant:
            return self.phases[0].start
        moment = known(moment, owner)
        begun = [phase for phase in self.phases if moment.now(phase.by_epoch) >= phase.begin]
        return (begun[-1] if begun else self.phases[0]).value(moment)

    def __str__(self) -> str:
        return ', then '.join(map(str, self.phases))


def known(moment: Moment | None, owner: str) -> Moment:
    """Return a moment, or raise ConfigError if it is None."""
    if moment is None:
        raise ConfigError(
            f'Expected to know the iteration for {owner}, which changes over time, but nobody has set it. Add '
            "custom_hooks=[dict(type='kdplugin.DistillationHook')] to the config, or in a loop of your own call "
            'distillation_of(model).at(Moment(iteration, max_iters=...)) before each step.'
        )
    return moment


@dataclass(frozen=True)
class Weight:
    """The factor of a term: a schedule, ramped up at the beginning and 0 after an end.

    Args:
        schedule: of the factor; 1 where a calibration finds the factor.
        warmup: iterations, or epochs, over which it grows: in step n of N it is n / N of itself, n from 1.
        stop_after: iterations, or epochs, after which it is 0.
        by_epoch: ``warmup`` and ``stop_after`` are epochs; the warm-up still grows by iterations.
    """

    schedule: Schedule
    warmup: int = 0
    stop_after: int | None = None
    by_epoch: bool = False

    @property
    def constant(self) -> bool:
        return self.schedule.constant and not self.warmup and self.stop_after is None

    @property
    def peak(self) -> float:
        return 0.0 if self.stop_after == 0 else self.schedule.peak

    def value(self, moment: Moment | None, owner: str) -> float:
        """Return the factor at a moment; raises ConfigError as ``Schedule.value`` does."""
        value = self.schedule.value(moment, owner)
        if self.constant or value == 0:
            return value
        moment = known(moment, owner)
        if self.stop_after is not None and moment.now(self.by_epoch) >= self.stop_after:
            return 0.0
        steps = moment.iterations(self.warmup, self.by_epoch) if self.warmup else 0
        return value * min(1.0, (moment.iteration + 1) / steps) if steps else value

    def at_peak(self) -> Weight:
        """Return this weight as the largest number that it ever takes."""
        return Weight(parse_schedule(self.peak, 'weight'))

    def __str__(self) -> str:
        """Return for example '1, warm-up 500 iterations, stops after 2000 iterations'."""
        unit = 'epochs' if self.by_epoch else 'iterations'
        parts = [str(self.schedule)]
        parts += [f'warm-up {self.warmup} {unit}'] if self.warmup else []
        parts += [f'stops after {self.stop_after} {unit}'] if self.stop_after is not None else []
        return ', '.join(parts)


def parse_schedule(value: Any, owner: str, most: float = math.inf) -> Schedule:
    """Read a number, ``dict(kind=, start=, stop=, begin=, end=, by_epoch=)``, or a list of such dicts in their order.

    Args:
        value: as in the config.
        owner: how messages call it, such as "pair 'logits'".
        most: the largest value that makes sense.

    Raises:
        ConfigError: says what is wrong with it.

    Example:
        >>> first = dict(kind='constant', start=0.8, end=1, by_epoch=True)
        >>> alpha = parse_schedule([first, dict(kind='linear', start=0.7, stop=0.6, by_epoch=True)], 'alpha')
        >>> [round(alpha.value(Moment(0, epoch, 50, 5), 'alpha'), 3) for epoch in range(5)]
        [0.8, 0.7, 0.667, 0.633, 0.6]
    """
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, str) or not isinstance(value, Sequence):
        number = check_number(value, owner, most)
        return Schedule((Phase('constant', number, number),))
    if not value or not all(isinstance(phase, Mapping) for phase in value):
        raise ConfigError(
            f'Expected a number, a dict or a list of dicts as weight in {owner} but got {value!r}. Write '
            "dict(kind='linear', start=0.7, stop=0.6, begin=0, end=1000)."
        )
    phases: list[Phase] = []
    for entry in value:
        phases.append(_parse_phase(entry, phases[-1] if phases else None, owner, most))
    return Schedule(tuple(phases))


def _parse_phase(entry: Mapping[str, Any], before: Phase | None, owner: str, most: float) -> Phase:
    known_keys = [field.name for field in fields(Phase)]
    for key in entry:
        if key not in known_keys:
            raise ConfigError(
                f'Expected keys {known_keys} in the schedule of {owner} but got {key!r}.{did_you_mean(key, known_keys)}'
            )
    kind = entry.get('kind', 'constant')
    if kind not in KINDS:
        raise ConfigError(f'Expected a kind of {list(KINDS)} in {owner} but got {kind!r}.{did_you_mean(kind, KINDS)}')
    start = check_number(entry.get('start'), f'start in {owner}', most)
    stop = check_number(entry.get('stop', start if kind == 'constant' else None), f'stop in {owner}', most)
    if kind == 'constant' and stop != start:
        raise ConfigError(f'Expected a constant in {owner} to stop at {start} but got {stop}. Write a linear one.')
    by_epoch = bool(entry.get('by_epoch', False))
    counts = {
        key: check_count(entry[key], f'{key} in {owner}') for key in ('begin', 'end') if entry.get(key) is not None
    }
    phase = Phase(kind, start, stop, by_epoch=by_epoch, **counts)
    if before is not None:
        if 'begin' not in counts and before.end is not None and before.by_epoch == by_epoch:
            phase = replace(phase, begin=before.end)
        elif 'begin' not in counts or (before.by_epoch == by_epoch and phase.begin < (before.end or before.begin + 1)):
            raise ConfigError(
                f'Expected the phases of {owner} one after the other but {phase} follows {before}. Give the first an '
                'end, and each a begin that is not before it.'
            )
    if phase.end is not None and phase.end <= phase.begin:
        raise ConfigError(f'Expected a phase of {owner} to end after its begin but got {phase}. Correct begin or end.')
    return phase


def check_number(value: Any, owner: str, most: float = math.inf) -> float:
    """Return a weight as float, or raise ConfigError unless it is a finite number from 0 to ``most``."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf and value <= most
    if not good:
        limit = '>= 0' if most == math.inf else f'from 0 to {most:g}'
        raise ConfigError(f'Expected a finite weight {limit} in {owner} but got {value!r}. Give a number.')
    return float(value)


def check_count(value: Any, owner: str) -> int:
    """Return a number of iterations or epochs, or raise ConfigError unless it is a whole number >= 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f'Expected a whole number >= 0 as {owner} but got {value!r}. Count iterations or epochs.')
    return value
