"""All checks of a config, one after the other; a failed one stops only those that depend on it."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from kdplugin.distill.distillation import Distillation, by_teacher
from kdplugin.distill.distiller import attach
from kdplugin.distill.first_step import first_step
from kdplugin.distill.model_config import is_distillation, is_distiller, learns_velocities
from kdplugin.distill.pairs import Pair, parse_pair
from kdplugin.distill.probe import probed_once
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.settings import parse_task_weight, teacher_configs, teacher_weights
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError
from kdplugin.preflight.balance import check_balance, check_counted_once
from kdplugin.preflight.batch import RANDOM, check_batch, check_caches
from kdplugin.preflight.building import check_hooks_build, check_schedulers_build
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.labels import check_labels
from kdplugin.preflight.models import check_frozen, check_student, check_teacher, student_path
from kdplugin.preflight.optimizers import check_optimizer_builds, check_space
from kdplugin.preflight.pairs import check_tap_paths, check_taps
from kdplugin.preflight.projection import check_projection
from kdplugin.preflight.quiet import quiet
from kdplugin.preflight.recipe_index import recipes_listed_once
from kdplugin.preflight.resume_file import checked_resume
from kdplugin.preflight.runner_settings import check_wrapped_modules
from kdplugin.preflight.shrinking import shrunk
from kdplugin.preflight.static import check_statically, teacher_path, without
from kdplugin.preflight.step import (
    STEP,
    Step,
    check_finite,
    check_own_losses,
    check_pair_gradient,
    check_parameters,
    check_teacher_untouched,
    note_shares,
    run_step,
)
from kdplugin.preflight.strides import check_strides
from kdplugin.preflight.validation import check_validation
from kdplugin.weights.reading.io import trust_checkpoints


def verify(config: Config, *, static: bool = False, gpus: int | None = None, download: bool = False) -> Findings:
    """Check a training config without training it, and return everything there is to say.

    Args:
        config: parsed; a config without ``kdplugin.Distiller`` is checked as far as it goes.
        static: build no model and run nothing.
        gpus: processes of the training, to compare the learning rate with the batch.
        download: fetch a teacher's checkpoint that is not here.

    Example:
        >>> from kdplugin.launch import read_config
        >>> [finding.message for finding in verify(read_config('config.py'))]  # doctest: +SKIP
    """
    found, scope = Findings(), config.get('default_scope')
    trusted = config.get('trust_checkpoint') is True
    with contextlib.ExitStack() as stack:
        for block in (trust_checkpoints(trusted), preserved_rng(), recipes_listed_once(), probed_once(), first_step()):
            stack.enter_context(block)
        stack.enter_context(quiet(logging.ERROR))
        init_default_scope(scope if isinstance(scope, str) and scope else 'mmengine')
        torch.manual_seed(0)
        files_exist = check_statically(found, config, gpus)
        broken = {finding.where for finding in found.errors if '.' not in finding.where and finding.check == 'keys'}
        if not static and found.unsafe:
            found.note('model', 'not checked: the models, because nothing is built while a type is not known.')
        elif not static and config.get('model'):
            found.run('models', _verify_models, without(config, broken - {'train_cfg'}), files_exist, download)
    return found


def _verify_diffusion(found: Findings, config: Config) -> None:
    from kdplugin.preflight.diffusion_step import ready_diffusion  # needs diffusers, which others do not

    student, _ = found.run('student', check_student, config) or (None, False)
    found.run('hooks', check_hooks_build, config)
    found.run('schedules', check_schedulers_build, config)
    if student is None or any(one.where.startswith('model') for one in found.errors):
        found.note(STEP, 'not checked: one step, before the model is right.')
        return
    frozen = _verify_parts(found, config, student)
    with tempfile.TemporaryDirectory() as folder:
        distillation = found.run('distillation', ready_diffusion, config, student, frozen, folder)
        if distillation is None:
            return
        data, name = found.run(STEP, check_batch, config, student, True, False) or (None, '')
        if data is not None:
            _take_step(found, config, student, distillation, data, name, True, [distillation.wan.module])


def _verify_models(found: Findings, config: Config, files_exist: bool, download: bool) -> None:
    if learns_velocities(config.model):
        _verify_diffusion(found, config)
        return
    settings: Mapping[str, Any] | None = config.model if is_distiller(config.model) else None
    teachers: dict[str, Teacher] = {}
    modules: dict[str, nn.Module | None] = {}
    student, ready = None, False
    if settings is None or settings.get('student'):
        student, ready = found.run('student', check_student, config) or (None, False)
    for name, one in teacher_configs(settings).items() if settings is not None else ():
        modules[name], teacher = found.run('teacher', check_teacher, one, teacher_path(name), download) or (None, None)
        if teacher is not None:
            teachers[name] = teacher
    pairs = [] if settings is None else _verify_pairs(found, settings, student, modules)
    found.run('hooks', check_hooks_build, config)
    found.run('schedules', check_schedulers_build, config)
    if student is None:
        found.note(STEP, 'not checked: there is no student to train.')
        return
    _verify_step(found, config, student, teachers, pairs, files_exist, ready)


def _verify_pairs(
    found: Findings,
    settings: Mapping[str, Any],
    student: nn.Module | None,
    teachers: Mapping[str, nn.Module | None],
) -> list[Pair]:
    """Return the pairs that are right, and that both models can serve."""
    entries, good = settings.get('pairs'), []
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        with found.during('taps'):
            teacher = teachers.get(entry.get('teacher', 'teacher'))
            fits = check_tap_paths(found, str(name), entry, student, teacher)
        if fits and not any(one.where.startswith(f'model.pairs.{name}') for one in found.errors):
            with contextlib.suppress(Exception):  # said by check_pair
                good.append(parse_pair(str(name), entry))
    for pair in good:
        if pair.weight.peak == 0:
            found.note(f'model.pairs.{pair.name}', 'has weight 0: it is not run.')
    if student is None:
        return []
    groups = [(group, teachers.get(name)) for name, group in by_teacher(good).items()]
    return [
        pair
        for group, teacher in groups
        if teacher
        for pair in found.run('taps', check_taps, group, student, teacher) or []
    ]


def _verify_step(
    found: Findings,
    config: Config,
    student: nn.Module,
    teachers: dict[str, Teacher],
    pairs: list[Pair],
    files_exist: bool,
    ready: bool,
) -> None:
    settings = config.model if is_distiller(config.model) else {}
    frozen = _verify_parts(found, config, student)
    distillation = _distillation(found, settings, student, teachers, pairs, frozen) if settings else None
    if settings and distillation is None:
        return
    places = {teacher_path(name): teacher for name, teacher in teachers.items()}
    found.run('cache', check_caches, config, places, files_exist)
    with found.during('training step'):
        data, name = check_batch(found, config, student, files_exist)
        found.run('labels', check_labels, student, data)
    trusted = ready and all(teacher.sha256 for teacher in teachers.values())
    modules = [teacher.module for teacher in teachers.values()]
    if _take_step(found, config, student, distillation, data, name, trusted, modules):
        found.run('validation', check_validation, config, student, files_exist)


def _verify_parts(found: Findings, config: Config, student: nn.Module) -> list[str]:
    """Check what a student begins with and what moves it; returns the names of what is frozen."""
    found.run('projection', check_projection, config, student)
    found.run('resume', checked_resume, config, student)
    found.run('settings', check_wrapped_modules, config, student)
    patterns = (config.model.get('frozen') if is_distillation(config.model) else None) or ()
    frozen = found.run('frozen', check_frozen, patterns if isinstance(patterns, list | tuple) else (), student) or []
    found.run('optimizer', check_optimizer_builds, config, student, frozen)
    found.run('disk space', check_space, config, student)
    return frozen


def _take_step(
    found: Findings,
    config: Config,
    student: nn.Module,
    distillation: Distillation | None,
    data: Any,
    name: str,
    trusted: bool,
    teachers: Sequence[nn.Module],
) -> bool:
    """Take one step on a batch and judge it; True if it could be taken."""
    with found.during('training step'):
        small = shrunk(data)
        step = None if small is data else _small_step(student, distillation, small)
        if step is None:
            step = found.attempt(STEP, f'one training step on {name}', run_step, student, distillation, data)
        elif step.size is not None:
            name = f'{name}, made small ({step.size[0]}x{step.size[1]})'
        if step is None:
            found.note(STEP, 'not checked: finite losses and gradients, because the step failed.')
            return False
        _judge(found, config, student, step, distillation, name, trusted)
        if step.size is not None:
            found.run('strides', check_strides, student_path(config), student, step.maps, step.size[0])
        for teacher in teachers:
            check_teacher_untouched(found, teacher)
    return True


def _small_step(student: nn.Module, distillation: Distillation | None, data: Any) -> Step | None:
    """Take a step on a batch that was made small; None if it goes wrong, which its size may be the reason of."""
    try:
        step = run_step(student, distillation, data)
    except Exception:
        return None
    return step if check_finite(Findings(), step) else None


def _judge(
    found: Findings,
    config: Config,
    student: nn.Module,
    step: Step,
    distillation: Distillation | None,
    name: str,
    trusted: bool,
) -> None:
    """Look at the losses and gradients of a step.

    Args:
        trusted: the weights are those that training begins with; random ones say nothing about the size of terms.
    """
    finite = check_finite(found, step) if trusted else check_finite(Findings(), step)
    if finite:
        note_shares(found, step, distillation, name)
        if trusted:
            found.run('balance', check_balance, step, distillation)
    elif not trusted:
        found.note(STEP, 'not checked: finite losses, because some weights are random and not those of the training.')
    found.run('loss names', check_counted_once, step)
    found.run('loss names', check_own_losses, step)
    for pair in distillation.active if distillation is not None and finite else ():
        found.attempt(
            f'model.pairs.{pair.name}',
            'a gradient',
            check_pair_gradient,
            found,
            student,
            pair,
            step,
            RANDOM not in name,
        )
    unused = bool(config.get('find_unused_parameters', False))
    found.attempt(STEP, 'a backward pass', check_parameters, found, student, step.total, unused)


def _distillation(
    found: Findings,
    settings: Mapping[str, Any],
    student: nn.Module,
    teachers: dict[str, Teacher],
    pairs: list[Pair],
    frozen: list[str],
) -> Distillation | None:
    """Return what the student distils, attached to it; None with an error where it cannot be made to."""
    taught = [pair for pair in pairs if pair.teacher in teachers]
    if len(taught) < len(pairs):
        found.note(STEP, 'not checked: the distillation terms, because the teacher is not loaded.')
    shares: dict[str, Any] = {}
    with contextlib.suppress(ConfigError):
        shares = {'teacher_weights': teacher_weights(settings), **parse_task_weight(settings)}
    distillation = Distillation(taught, teachers, {}, frozen, attended=True, **shares)
    distillation.at_peak()
    if found.attempt(STEP, 'the student to distil', attach, student, distillation) is None:
        found.note(STEP, 'not checked: losses and gradients, because the student cannot be made to distil.')
        return None
    return distillation
