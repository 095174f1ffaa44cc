"""Between the Runner and a distilled student: reports, checkpoints and resume."""

from __future__ import annotations

import time
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn

import kdplugin
from kdplugin.distill.adapters import LevelAdapters
from kdplugin.distill.distillation import Distillation
from kdplugin.distill.distiller import ADAPTERS, adapters_of, distillation_of
from kdplugin.distill.schedules import Moment
from kdplugin.distill.teachers.teacher import Teacher, load_strictly
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.hooks.model_of import model_of
from kdplugin.hooks.resume_checks import check_resumed_weights
from kdplugin.registry import HOOKS
from kdplugin.reports.opening import PairLine, ParameterCounts, TeacherMatch, opening_report
from kdplugin.reports.teacher_metric import recall
from kdplugin.reports.training_table import Term, training_table

KEY = 'kdplugin'


@HOOKS.register_module()
class DistillationHook(Hook):
    """Report what distils, keep adapters and settings in checkpoints, and check a resume strictly.

    Needs a model built by ``kdplugin.Distiller``. The tools of kdplugin add it to a config by themselves.

    Raises:
        ConfigError: the model was not built by ``kdplugin.Distiller``.
        CheckpointError: a resumed checkpoint does not fit the student, the adapters or the teacher.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = 0
        self._since = 0.0

    def before_run(self, runner: Runner) -> None:
        student, distillation = self._parts(runner)
        distillation.attended = True
        runner.logger.info('\n' + describe(student, distillation))

    def before_train(self, runner: Runner) -> None:
        _, distillation = self._parts(runner)
        for teacher in distillation.teachers.values():
            teacher.open_cache(runner.train_dataloader.dataset)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._steps == 0:
            self._since = time.perf_counter()
        _, distillation = self._parts(runner)
        distillation.at(moment_of(runner))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        for name, value in (outputs or {}).items():
            value = torch.as_tensor(value).detach().float()
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1

    def after_train_epoch(self, runner: Runner) -> None:
        if runner._val_loop is None and self._steps:
            self._close_interval(runner, {}, runner.epoch + 1)

    def before_val(self, runner: Runner) -> None:
        self._seconds = (time.perf_counter() - self._since) / max(self._steps, 1)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if self._steps:
            self._close_interval(runner, metrics or {}, runner.epoch)

    def _close_interval(self, runner: Runner, metrics: dict[str, float], epoch: int) -> None:
        _, distillation = self._parts(runner)
        distillation.guard.check(wait=True)
        means = {name: float(value) / self._counts[name] for name, value in self._sums.items()}
        terms = [
            Term(
                pair.name,
                raw=means.get(f'kd_{pair.name}_raw'),
                weight=means[f'kd_{pair.name}_weight'],
                weighted=means[f'loss_kd_{pair.name}'],
                temperature=pair.method.temperature,
            )
            for pair in distillation.active
        ]
        label = f'iteration {runner.iter}' if runner.max_epochs <= 1 else f'epoch {epoch}'
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        task = means.get('kd_task', means['loss'])
        seconds = getattr(self, '_seconds', (time.perf_counter() - self._since) / self._steps)
        runner.logger.info('\n' + training_table(label, rate, seconds, task, terms, means['loss'], metrics))
        self._sums, self._counts, self._steps = {}, {}, 0

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        student, distillation = self._parts(runner)
        distillation.guard.check(wait=True)
        record = settings_record(distillation)
        checkpoint['meta'][KEY] = {**checkpoint['meta'].get(KEY, {}), **record}
        adapters = {name: value.cpu() for name, value in adapters_of(student).state_dict().items()}
        checkpoint[KEY] = {**record, 'adapters': adapters, 'state': distillation.state()}

    def after_train(self, runner: Runner) -> None:
        _, distillation = self._parts(runner)
        distillation.guard.check(wait=True)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            check_resumed_weights(runner, checkpoint)
            student, distillation = self._parts(runner)
            check_resume(student, distillation, checkpoint)

    @staticmethod
    def _parts(runner: Runner) -> tuple[nn.Module, Distillation]:
        model = model_of(runner)
        distillation = distillation_of(model)
        if distillation is None:
            raise ConfigError(
                f'Expected a model of type kdplugin.Distiller for DistillationHook but got {type(model).__name__}. '
                'Wrap the model, or remove the hook.'
            )
        return model, distillation


def moment_of(runner: Runner) -> Moment:
    """Return where a run stands; the loop by iterations counts no epochs."""
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        return Moment(runner.iter, max_iters=runner.max_iters)
    return Moment(runner.iter, runner.epoch, runner.max_iters, runner.max_epochs)


def settings_record(distillation: Distillation) -> dict[str, Any]:
    """Return what a checkpoint says about its distillation, as plain values."""
    teachers = {
        name: {'checkpoint': teacher.checkpoint, 'sha256': teacher.sha256}
        for name, teacher in distillation.teachers.items()
    }
    return {'version': kdplugin.__version__, 'settings': distillation.settings, 'teachers': teachers}


def check_resume(student: nn.Module, distillation: Distillation, checkpoint: dict[str, Any]) -> None:
    """Compare a checkpoint with the run that resumes from it and load its adapters.

    Raises:
        CheckpointError: names what does not fit.
    """
    saved = checkpoint.get(KEY)
    if saved is None:
        raise CheckpointError(
            'Expected to resume a distillation run but the checkpoint comes from a run without distillation. '
            'Use load_from to start anew from its weights.'
        )
    check_teachers(distillation, saved)
    load_strictly(adapters_of(student), saved['adapters'], "the checkpoint's adapters")
    distillation.load_state(saved.get('state', {'calibrations': {}, 'skipped': {}}))


def check_teachers(distillation: Distillation, saved: dict[str, Any]) -> None:
    """Raise CheckpointError if a resumed run learns from other teachers than it began with.

    Version 0.1.0 wrote one teacher, and no state.
    """
    before = saved['teachers'] if 'teachers' in saved else {'teacher': saved['teacher']} if saved['teacher'] else {}
    now = distillation.teachers
    if before and now and before.keys() != now.keys():
        raise CheckpointError(
            f'Expected the teachers this run began with, {sorted(before)}, but got {sorted(now)}. Put the old names '
            'back, or start a new run.'
        )
    for name in before.keys() & now.keys():
        if now[name].sha256 != before[name]['sha256']:
            raise CheckpointError(
                f'Expected the teacher this run began with (sha256 {before[name]["sha256"][:12]}) but '
                f'{now[name].checkpoint} is another file (sha256 {now[name].sha256[:12]}). Put the old file back, or '
                'start a new run.'
            )


def notes_of(teacher: Teacher) -> tuple[str, ...]:
    """Return how a teacher runs, and what it measured if that is kept beside its checkpoint."""
    measured = (f'measured {one}' for one in recall(teacher.checkpoint, teacher.sha256))
    return f'runs {teacher.how}', *measured


def describe(student: nn.Module, distillation: Distillation) -> str:
    """Return the opening report of a run."""
    adapters = adapters_of(student)
    counts = {True: 0, False: 0}
    for name, parameter in student.named_parameters():
        if not name.startswith(f'{ADAPTERS}.'):
            counts[parameter.requires_grad] += parameter.numel()
    matches = [
        TeacherMatch(
            one.checkpoint, one.sha256, one.tensors, one.tensors, one.parameters, one.parameters, name, notes_of(one)
        )
        for name, one in distillation.teachers.items()
    ]  # fmt: skip
    lines = [
        PairLine(
            pair.name, ', '.join(pair.student_taps), ', '.join(pair.teacher_taps), pair.method.label, pair.how_much,
            owned_by(adapters[pair.name]) if pair.name in adapters else '',
            pair.teacher if len(distillation.teachers) > 1 else '',
        )
        for pair in distillation.pairs
    ]  # fmt: skip
    total = sum(parameter.numel() for parameter in adapters.parameters())
    return opening_report(matches, ParameterCounts(counts[True], counts[False], total), lines)


def owned_by(module: nn.Module) -> str:
    """Return what a pair trains beside the student, in a few words."""
    if isinstance(module, LevelAdapters):
        return str(module)
    return f'{type(module).__name__}, {sum(value.numel() for value in module.parameters()):,} parameters'
