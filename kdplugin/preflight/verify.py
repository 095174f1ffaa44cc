"""All checks of a config, one after the other; a failed one stops only those that depend on it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn

from kdplugin.distill.distillation import Distillation, by_teacher
from kdplugin.distill.distiller import attach
from kdplugin.distill.model_config import is_distiller
from kdplugin.distill.pairs import Pair
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.settings import distiller_mistakes, parse_task_weight, teacher_configs, teacher_weights
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError
from kdplugin.preflight.batch import check_batch, check_caches
from kdplugin.preflight.data import check_classes, check_dataset_files
from kdplugin.preflight.findings import Finding, Findings
from kdplugin.preflight.models import check_frozen, check_preprocessing, check_student, check_teacher
from kdplugin.preflight.pairs import check_pair, check_taps
from kdplugin.preflight.projection import check_projection
from kdplugin.preflight.step import (
    STEP,
    check_finite,
    check_pair_gradient,
    check_parameters,
    check_teacher_untouched,
    note_shares,
    run_step,
)
from kdplugin.preflight.work_dir import check_work_dir
from kdplugin.weights.reading.io import trust_checkpoints


def verify(config: Config) -> list[Finding]:
    """Check a training config without training it, and return everything there is to say.

    Args:
        config: parsed; a config without ``kdplugin.Distiller`` is checked as far as it goes.

    Example:
        >>> from kdplugin.launch import read_config
        >>> [finding.message for finding in verify(read_config('config.py'))]  # doctest: +SKIP
    """
    found = Findings()
    init_default_scope(config.get('default_scope', 'mmengine'))
    with trust_checkpoints(bool(config.get('trust_checkpoint', False))), preserved_rng(), _quiet():
        torch.manual_seed(0)
        check_work_dir(found, config)
        files_exist = check_dataset_files(found, config)
        if not config.get('model'):
            found.error('model', 'Expected a model in the config but got none. Give the config of a training.')
            return found
        _verify_models(found, config, files_exist)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the host's advice and its line for each initialised tensor out of the report."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            yield
        finally:
            logger.setLevel(level)


def _verify_models(found: Findings, config: Config, files_exist: bool) -> None:
    settings: Mapping[str, Any] | None = config.model if is_distiller(config.model) else None
    pairs: list[Pair] = []
    teachers: dict[str, Teacher] = {}
    modules: dict[str, nn.Module | None] = {}
    if settings is not None:
        for mistake in distiller_mistakes({key: value for key, value in settings.items() if key != 'type'}):
            found.error('model', mistake)
    student = check_student(found, config) if settings is None or settings.get('student') else None
    if settings is None:
        found.note('model', 'no kdplugin.Distiller: this trains without a teacher.')
    else:
        for name, one in teacher_configs(settings).items():
            modules[name], teacher = check_teacher(found, one, _where(name))
            if teacher is not None:
                teachers[name] = teacher
        pairs = _verify_pairs(found, settings, student, modules)
    check_classes(found, config, {'student': student, **{_where(name): module for name, module in modules.items()}})
    for name, module in modules.items():
        own = settings is not None and teacher_configs(settings)[name].get('preprocess') == 'own'
        if student is not None and module is not None and not own:
            check_preprocessing(found, student, module)
    if student is None:
        found.note(STEP, 'not checked: there is no student to train.')
        return
    check_projection(found, config, student)
    _verify_step(found, config, student, teachers, pairs, files_exist)


def _where(teacher: str) -> str:
    return 'teacher' if teacher == 'teacher' else f'teacher {teacher}'


def _verify_pairs(
    found: Findings,
    settings: Mapping[str, Any],
    student: nn.Module | None,
    teachers: Mapping[str, nn.Module | None],
) -> list[Pair]:
    entries = settings.get('pairs') or {}
    if not isinstance(entries, Mapping):
        return []
    checked = [
        check_pair(found, name, entry, student, teachers.get(entry.get('teacher', 'teacher')))
        for name, entry in entries.items()
        if isinstance(entry, Mapping)
    ]
    pairs = [pair for pair in checked if pair is not None]
    if not entries:
        found.note('pairs', 'none: this trains exactly as the plain config does.')
    for pair in pairs:
        if pair.weight.peak == 0:
            found.note(f'pair {pair.name}', 'has weight 0: it is not run.')
    if student is None:
        return []
    groups = [(group, teachers.get(name)) for name, group in by_teacher(pairs).items()]
    return [pair for group, teacher in groups if teacher for pair in check_taps(found, group, student, teacher)]


def _verify_step(
    found: Findings,
    config: Config,
    student: nn.Module,
    teachers: dict[str, Teacher],
    pairs: list[Pair],
    files_exist: bool,
) -> None:
    settings = config.model if is_distiller(config.model) else {}
    patterns = settings.get('frozen') or ()
    frozen = check_frozen(found, patterns if isinstance(patterns, list | tuple) else (), student)
    distillation = None
    if settings:
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
            return
    check_caches(found, config, {_where(name): teacher for name, teacher in teachers.items()}, files_exist)
    data, name = check_batch(found, config, student, files_exist)
    step = found.attempt(STEP, f'one training step on {name}', run_step, student, distillation, data)
    if step is None:
        found.note(STEP, 'not checked: finite losses and gradients, because the step failed.')
        return
    if check_finite(found, step):
        note_shares(found, step, distillation, name)
    for pair in distillation.active if distillation is not None else ():
        found.attempt(f'pair {pair.name}', 'a gradient', check_pair_gradient, found, student, pair, step)
    unused = bool(config.get('find_unused_parameters', False))
    found.attempt(STEP, 'a backward pass', check_parameters, found, student, step.total, unused)
    for teacher in teachers.values():
        check_teacher_untouched(found, teacher.module)
