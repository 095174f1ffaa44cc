"""What distillation adds to one training step of a student."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from kdplugin.distill.finite import FiniteGuard
from kdplugin.distill.ground_truth import first_tensor, truth_of
from kdplugin.distill.methods import StepContext
from kdplugin.distill.pairs import Pair, check_needs
from kdplugin.distill.probe import ProbeResult, probe, probe_sizes
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.schedules import Moment, Schedule, parse_schedule
from kdplugin.distill.taps import Caught, Tap, catch
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.distill.terms import Tapped, nothing, precise_all, scale, total
from kdplugin.errors import TapError

Losses = dict[str, Any]
ONE = parse_schedule(1.0, 'a weight')


@dataclass
class Distillation:
    """Teachers, pairs and settings of one student; copies of the student carry None in its place.

    Args:
        pairs: all pairs of the config.
        teachers: by the name that pairs give; a single one is called 'teacher'.
        settings: the config as plain values, kept in checkpoints.
        frozen: names of the student's frozen modules and parameters.
        task_weight: factor of the student's own loss terms.
        alpha: instead of ``task_weight``: factor of all pairs, and 1 minus it that of the student's own terms.
        teacher_weights: factor of all pairs of a teacher.
        attended: a DistillationHook looks after checkpoints and reports.
        moment: where the training stands, set by ``at``.
        skipped: by pair, how many steps went without it because its distance was not finite.
    """

    pairs: list[Pair]
    teachers: dict[str, Teacher]
    settings: dict[str, Any]
    frozen: list[str]
    task_weight: Schedule = ONE
    alpha: Schedule | None = None
    teacher_weights: dict[str, Schedule] = field(default_factory=dict)
    student_probe: ProbeResult | None = None
    attended: bool = False
    moment: Moment | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    guard: FiniteGuard = field(default_factory=FiniteGuard, repr=False)
    checked: set[str] = field(default_factory=set, repr=False)
    taps: dict[str, Tap] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()

    @property
    def teacher(self) -> Teacher | None:
        """The only teacher, None where there is no or more than one."""
        return next(iter(self.teachers.values())) if len(self.teachers) == 1 else None

    @property
    def active(self) -> list[Pair]:
        """The pairs that have a weight above 0 at some time."""
        return [pair for pair in self.pairs if pair.weight.peak * math.prod(one.peak for one in self._shared(pair)) > 0]

    def _shared(self, pair: Pair) -> list[Schedule]:
        """Return the factors that a pair shares with others."""
        return [self.teacher_weights.get(pair.teacher, ONE), ONE if self.alpha is None else self.alpha]

    def at(self, moment: Moment) -> None:
        """Say where the training stands; a DistillationHook does so before each iteration."""
        self.moment = moment

    @property
    def _when(self) -> str:
        return '' if self.moment is None else f' at iteration {self.moment.iteration}'

    def at_peak(self) -> None:
        """Give every pair the largest weight it ever has, from now on: for a look at all of them in one step."""
        self.pairs = [replace(pair, weight=pair.weight.at_peak()) for pair in self.pairs]
        self.teacher_weights = {
            name: parse_schedule(weight.peak, 'teacher') for name, weight in self.teacher_weights.items()
        }
        self.alpha = self.alpha and parse_schedule(self.alpha.peak, 'alpha')
        self.task_weight = parse_schedule(self.task_weight.peak, 'task_weight')

    def factor(self, pair: Pair) -> float:
        """Return the weight of a pair now, without what its calibration finds."""
        owner = f'the weight of pair {pair.name!r}'
        shared = math.prod(schedule.value(self.moment, owner) for schedule in self._shared(pair))
        return pair.weight.value(self.moment, owner) * shared

    def prepare(self, student: nn.Module) -> nn.ModuleDict:
        """Probe all models and return what the active pairs train beside the student, by pair name."""
        owned = nn.ModuleDict()
        if not self.active:
            return owned
        for pair in self.active:
            check_needs(pair, student)
        sizes = probe_sizes(student)
        self.student_probe = probe(student, taps_of(self.active, 'student'), 'student', sizes)
        probes: dict[str, ProbeResult] = {}
        for name, pairs in by_teacher(self.active).items():
            teacher = self.teachers[name]
            owner = 'teacher' if len(self.teachers) == 1 else f'teacher {name!r}'
            probes[name] = teacher.learn(taps_of(pairs, 'teacher'), student, sizes, owner)
        with preserved_rng():
            for pair in self.active:
                module = pair.method.prepare(
                    self.student_probe, probes[pair.teacher], student, self.teachers[pair.teacher]
                )
                if module is not None:
                    owned[pair.name] = module
        return owned

    @torch.compiler.disable(recursive=False)
    def losses(
        self,
        student: nn.Module,
        forward: Callable[..., Losses],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        owned: nn.ModuleDict,
    ) -> Losses:
        """Return the student's own losses, weighted, and the entries of each pair.

        ``loss_kd_<name>`` is trained; ``kd_<name>_raw``, ``kd_<name>_weight`` and ``kd_task`` are only logged. A pair
        whose weight is 0 now has no ``raw``; where that holds for all, the teacher is not run and nothing is tapped.
        Under ``torch.compile`` the student's ``forward`` is compiled and all else runs as it is.
        """
        factors, running, theirs = self._ask_teachers(args, kwargs)
        overwritten = frozenset() if self.student_probe is None else self.student_probe.overwritten
        taps = taps_of(running, 'student')
        with catch(student, taps, 'student', clone=overwritten, taps=self.taps) as caught:
            own = forward(*args, **kwargs)
        return self._add_pairs(own, student, caught, factors, running, theirs, args, kwargs, owned)

    @torch.compiler.disable
    def _ask_teachers(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[dict[str, float], list[Pair], dict[str, Tapped]]:
        """Return all weights now, the pairs that have one, and what their teachers' taps put out, by teacher."""
        factors = {pair.name: self.factor(pair) for pair in self.active}
        running = [pair for pair in self.active if factors[pair.name] > 0]
        theirs: dict[str, Tapped] = {
            name: precise_all(self.teachers[name].outputs(taps_of(pairs, 'teacher'), args, kwargs))
            for name, pairs in by_teacher(running).items()
        }
        return factors, running, theirs

    @torch.compiler.disable
    def _add_pairs(
        self,
        own: Losses,
        student: nn.Module,
        caught: Caught,
        factors: dict[str, float],
        running: list[Pair],
        theirs: dict[str, Tapped],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        owned: nn.ModuleDict,
    ) -> Losses:
        losses, task = self._weigh_task(own)
        self._check_once(running, caught.overwritten(), caught.tensors, owned)
        distances: dict[str, Tensor] = {}
        if running:
            ours, truth = precise_all(caught.tensors), truth_of(args, kwargs)
            with torch.autocast(first_tensor(args, kwargs).device.type, enabled=False):
                for pair in running:
                    context = StepContext(
                        {tap: ours[tap] for tap in pair.student_taps},
                        {tap: theirs[pair.teacher][tap] for tap in pair.teacher_taps},
                        student, self.teachers[pair.teacher], owned[pair.name] if pair.name in owned else None, **truth,
                    )  # fmt: skip
                    distances[pair.name] = pair.method.distance(context)
        self._watch([pair for pair in running if pair.on_nan == 'stop'], distances)
        for pair in self.active:
            module = owned[pair.name] if pair.name in owned else None
            losses.update(self._entries(pair, distances.get(pair.name), factors[pair.name], task, module))
        return losses

    def _watch(self, pairs: list[Pair], distances: Mapping[str, Tensor]) -> None:
        names = {pair.name: f'{pair}{self._when}' for pair in pairs}
        self.guard.watch({name: distances[name] for name in names}, names)

    def _entries(self, pair: Pair, raw: Tensor | None, factor: float, task: Tensor, module: nn.Module | None) -> Losses:
        """Return what a pair adds to the losses of a step; ``raw`` is None where it rests."""
        name, weight = pair.name, torch.full((), factor, device=task.device)
        entries: Losses = {}
        if raw is not None and pair.calibration is not None:
            weight = weight * pair.calibration.weight(raw, task, record=torch.is_grad_enabled())
        if pair.on_nan == 'skip':
            if raw is not None and not raw.isfinite():
                self._skip(pair)
                raw = None
            entries[f'kd_{name}_skipped'] = torch.full((), float(self.skipped.get(name, 0)))
        if raw is None:
            return {f'loss_kd_{name}': nothing(module, task), f'kd_{name}_weight': weight, **entries}
        return {
            f'loss_kd_{name}': weight * raw,
            f'kd_{name}_raw': raw.detach(),
            f'kd_{name}_weight': weight,
            **entries,
        }

    def _skip(self, pair: Pair) -> None:
        self.skipped[pair.name] = self.skipped.get(pair.name, 0) + 1
        print_log(
            f'Expected a finite distance but got NaN or infinity at {pair}{self._when}. The term is left out of this '
            f'step, {self.skipped[pair.name]} so far.',
            logger='current',
            level=logging.WARNING,
        )

    def _weigh_task(self, losses: Losses) -> tuple[Losses, Tensor]:
        """Return the student's own losses, weighted, and their sum before that."""
        weight = self.task_weight.value(self.moment, 'task_weight')
        if self.alpha is not None:
            weight = 1 - self.alpha.value(self.moment, 'alpha')
        with torch.no_grad():
            task = total(losses) if self.active else torch.zeros(())
        if weight != 1:
            losses = {name: scale(value, weight) if 'loss' in name else value for name, value in losses.items()}
        if self.active:
            losses['kd_task'] = task * weight
        if not self.task_weight.constant or self.alpha is not None:
            losses['kd_task_weight'] = torch.full((), weight, device=task.device)
        return losses, task

    def _check_once(
        self, pairs: list[Pair], overwritten: frozenset[str], tensors: Tapped, owned: nn.ModuleDict
    ) -> None:
        """Look at what the taps of pairs that run for the first time put out in training."""
        fresh = [pair for pair in pairs if pair.name not in self.checked]
        if not fresh or not torch.is_grad_enabled():
            return
        if overwritten:
            raise TapError(
                f'Expected the outputs of student taps to stay as they are but {sorted(overwritten)} are overwritten '
                'by an in-place operation that the probe did not see. Tap the module after it.'
            )
        for pair in fresh:
            if not any(value.requires_grad for tap in pair.student_taps for value in tensors[tap]):
                taps = ', '.join(map(repr, pair.student_taps))
                raise TapError(
                    f'Expected a gradient at student tap {taps} of pair {pair.name!r} but the tensor '
                    'has none, so the pair would train nothing. Unfreeze a module before it or tap a later one.'
                )
        if owned and not self.attended:
            print_log(
                'Expected a DistillationHook but the run has none, so checkpoints leave the adapters out and a '
                "resumed run starts them anew. Add custom_hooks=[dict(type='kdplugin.DistillationHook')].",
                logger='current',
                level=logging.WARNING,
            )
            self.attended = True
        self.checked.update(pair.name for pair in fresh)

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs beside weights and counters, as plain values."""
        calibrations = {pair.name: pair.calibration.state() for pair in self.pairs if pair.calibration is not None}
        return {'calibrations': calibrations, 'skipped': dict(self.skipped)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state`` returned; pairs that are not in it begin anew."""
        self.skipped = dict(state['skipped'])
        for pair in self.pairs:
            if pair.calibration is not None and pair.name in state['calibrations']:
                pair.calibration.load_state(state['calibrations'][pair.name])


def by_teacher(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Return pairs by the name of their teacher."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.teacher, []).append(pair)
    return groups


def taps_of(pairs: Iterable[Pair], side: Literal['student', 'teacher']) -> list[str]:
    """Return the taps of pairs on one side, each once."""
    return list(dict.fromkeys(tap for pair in pairs for tap in getattr(pair, f'{side}_taps')))
