"""Data, encoding, projection, training, saving, reloading, sampling: all of it, once, with assertions and faults."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from kdplugin.distill.diffusion.diffusion_distillation import DiffusionDistillation
from kdplugin.distill.diffusion.held_out import velocity_loss
from kdplugin.distill.diffusion.wan_teacher import WanTeacher
from kdplugin.distill.distiller import distillation_of
from kdplugin.production import checks, faults, measures, runs
from kdplugin.production.checks import Check
from kdplugin.production.measures import Examination
from kdplugin.production.setup import Settings, half, prepare_teacher, run_config
from kdplugin.weights.reading.io import hash_tensors

T = TypeVar('T')
GRID = 'samples.png'


@dataclass(frozen=True)
class Fault:
    """A fault that was put in, and the check that had to fail.

    Args:
        name: what was broken.
        check: as it came out.
    """

    name: str
    check: Check

    @property
    def caught(self) -> bool:
        return not self.check.passed


@dataclass
class Outcome:
    """Of a production test.

    Args:
        checks: of the pipeline as it is.
        faults: of broken ones.
        seconds: by stage.
        marks: loss and error by student, and of the best constants.
        grid: PNG with samples.
    """

    checks: list[Check] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    marks: dict[str, dict[str, float]] = field(default_factory=dict)
    grid: Path | None = None

    @property
    def passed(self) -> bool:
        """Whether every check holds and every fault was caught."""
        return not checks.failures(self.checks) and all(fault.caught for fault in self.faults)

    def timed(self, stage: str, work: Callable[[], T]) -> T:
        """Do a stage's work and keep how long it took."""
        began = time.perf_counter()
        result = work()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
        return result

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dict(
            passed=self.passed, checks=[check.to_json() for check in self.checks],
            faults=[dict(name=fault.name, caught=fault.caught, check=fault.check.to_json()) for fault in self.faults],
            seconds=self.seconds, marks=self.marks, grid=None if self.grid is None else str(self.grid),
        )  # fmt: skip


def production_test(settings: Settings) -> Outcome:
    """Run the whole pipeline and then broken ones.

    Args:
        settings: embedded teacher or real one.
    """
    outcome = Outcome()
    teacher = outcome.timed('teacher', lambda: prepare_teacher(settings))
    untouched = outcome.timed('teacher', lambda: hash_tensors(_fresh(settings, teacher).module.state_dict()))
    model, start = outcome.timed('train', lambda: runs.train(run_config(settings, 'projected', teacher)))
    random, cold = outcome.timed('train', lambda: runs.train(run_config(settings, 'random', teacher, projected=False)))
    examination = outcome.timed('examine', lambda: measures.examine(model))
    outcome.checks.append(checks.equal('teacher as it was', measures.teacher_hash(model), untouched))
    outcome.timed('examine', lambda: _examine(outcome, settings, examination, (model, start), (random, cold)))
    outcome.timed('reload', lambda: _reload(outcome, settings, model, examination))
    outcome.timed('resume', lambda: _resume(outcome, settings, teacher, model))
    outcome.timed('faults', lambda: _put_faults_in(outcome, settings, teacher, model, cold, examination, untouched))
    return outcome


def _fresh(settings: Settings, teacher: str) -> WanTeacher:
    config = run_config(settings, 'projected', teacher)
    return WanTeacher(**config.model.teacher)


def _examine(
    outcome: Outcome,
    settings: Settings,
    examination: Examination,
    projected: tuple[nn.Module, dict[str, Tensor]],
    random: tuple[nn.Module, dict[str, Tensor]],
) -> None:
    schedule = cast(DiffusionDistillation, distillation_of(projected[0])).flow.schedule
    marks = {
        'projected': measures.mark(projected[0], examination, schedule),
        'random': measures.mark(random[0], examination, schedule),
        'projected, untrained': measures.mark(runs.with_weights(*projected), examination, schedule),
        'random, untrained': measures.mark(runs.with_weights(*random), examination, schedule),
    }
    constant = measures.constant_error(examination)
    outcome.marks = {name: dict(loss=one.loss, error=one.error) for name, one in marks.items()}
    outcome.marks['best constant'] = dict(loss=examination.constant, error=constant)
    outcome.checks += [
        checks.learns(marks['projected'].loss, examination.constant),
        checks.starts_better(marks['projected, untrained'].loss, marks['random, untrained'].loss),
        checks.ends_better(marks['projected'].loss, marks['random'].loss),
        checks.paints(marks['projected'].error, constant),
    ]
    outcome.grid = settings.work_dir / GRID
    rows = {'teacher': examination.pictures, **{name: one.pictures for name, one in marks.items()}}
    measures.save_grid(rows, outcome.grid)


def _reload(outcome: Outcome, settings: Settings, model: nn.Module, examination: Examination) -> None:
    student = runs.reload(settings.work_dir / 'projected')
    outcome.checks.append(_same_answers('reloaded student answers alike', student, model, examination))


def _same_answers(name: str, student: nn.Module, model: nn.Module, examination: Examination) -> Check:
    asked = (examination.questions.latents[:4], examination.questions.timesteps[:4], examination.questions.text[:4])
    student = student.to(asked[0].device)
    return checks.equal(name, runs.outputs_hash(student, *asked), runs.outputs_hash(model, *asked))


def _resume(outcome: Outcome, settings: Settings, teacher: str, model: nn.Module) -> None:
    config = run_config(settings, 'resumed', teacher)
    stop = half(config)
    runs.train(config, stop=stop)
    resumed, _ = runs.train(run_config(settings, 'resumed', teacher), resume=True)
    outcome.checks.append(
        checks.equal('resumed run as uninterrupted', runs.weights_hash(resumed), runs.weights_hash(model), f'at {stop}')
    )


def _put_faults_in(
    outcome: Outcome,
    settings: Settings,
    teacher: str,
    model: nn.Module,
    cold: dict[str, Tensor],
    examination: Examination,
    untouched: str,
) -> None:
    with faults.teacher_sees_zeros():
        blind, _ = runs.train(run_config(settings, 'fault_zeros', teacher))
    blind_loss = velocity_loss(blind, examination.questions)
    outcome.faults.append(Fault('the teacher is fed zeros', checks.learns(blind_loss, examination.constant)))

    with faults.rows_of_others():
        _, mixed = runs.train(run_config(settings, 'fault_rows', teacher), stop=1)
    begun: list[Any] = [runs.with_weights(model, weights) for weights in (mixed, cold)]
    starts = [velocity_loss(one.to(examination.noise.device), examination.questions) for one in begun]
    outcome.faults.append(Fault('projected rows are mixed up', checks.starts_better(starts[0], starts[1])))

    with faults.teacher_is_trained():
        moving, _ = runs.train(run_config(settings, 'fault_moving', teacher), stop=1)
    outcome.faults.append(
        Fault('the teacher moves', checks.equal('teacher as it was', measures.teacher_hash(moving), untouched))
    )

    damaged = faults.damaged_copy(
        settings.work_dir / 'projected' / 'student', settings.work_dir / 'fault_save' / 'student'
    )
    check = _same_answers('reloaded student answers alike', runs.reload(damaged.parent), model, examination)
    outcome.faults.append(Fault('a tensor is lost in the saved student', check))
