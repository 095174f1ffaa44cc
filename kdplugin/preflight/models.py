"""Do the student and the teacher build, and does the teacher load?"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from kdplugin.distill.distiller import freeze
from kdplugin.distill.model_config import plain_model_config
from kdplugin.distill.teachers.preprocessing import preprocessing_warning
from kdplugin.distill.teachers.teacher import Teacher, build_teacher_model, load_teacher, teacher_mistakes
from kdplugin.module_paths import match_modules
from kdplugin.preflight.findings import Findings
from kdplugin.reports.tables import count


def check_student(found: Findings, config: Config) -> nn.Module | None:
    """The student builds as the Runner would build it, and starts from weights that are there."""
    settings = found.attempt('student', 'a student', plain_model_config, config)
    if settings is None:
        return None
    student = found.attempt('student', 'the student to build', MODELS.build, copy.deepcopy(settings))
    ready = check_pretrained(found, [*pretrained_files(settings), *filter(None, [config.get('load_from')])])
    if student is not None:
        size = count(sum(parameter.numel() for parameter in student.parameters()))
        found.note('student', f'{type(student).__name__}, {size} parameters.')
        if ready:
            found.attempt('student', 'its weights to be initialised', student.init_weights)
    return student


def check_pretrained(found: Findings, files: Sequence[str]) -> bool:
    """The files that the student starts from exist; False if one is missing or would have to be downloaded."""
    ready = True
    for path in files:
        if '://' in path:
            found.note('student', f'not checked: {path}, which is downloaded when training begins.')
            ready = False
        elif not Path(path).expanduser().is_file():
            found.error(
                'student', f'Expected the weights {path} but there is no such file. Correct init_cfg or load_from.'
            )
            ready = False
    return ready


def pretrained_files(settings: Any) -> Iterator[str]:
    """Yield the files of every ``init_cfg=dict(type='Pretrained', checkpoint=...)`` and ``pretrained=`` of a model."""
    if isinstance(settings, Mapping):
        if settings.get('type') == 'Pretrained' and settings.get('checkpoint'):
            yield str(settings['checkpoint'])
        if isinstance(settings.get('pretrained'), str):
            yield settings['pretrained']
        for value in settings.values():
            yield from pretrained_files(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from pretrained_files(value)


def check_frozen(found: Findings, patterns: Sequence[str], student: nn.Module) -> list[str]:
    """Every pattern selects something and something is left to train; returns the names, frozen."""
    names: dict[str, None] = {}
    for pattern in patterns:
        names.update(
            dict.fromkeys(found.attempt('frozen', 'a pattern', match_modules, student, [pattern], 'student') or ())
        )
    freeze(student, list(names))
    if names and not any(parameter.requires_grad for parameter in student.parameters()):
        found.error(
            'frozen', f'Expected something left to train but {list(patterns)} freeze everything. Remove a pattern.'
        )
    return list(names)


def check_teacher(
    found: Findings, settings: Mapping[str, Any], where: str = 'teacher'
) -> tuple[nn.Module | None, Teacher | None]:
    """The teacher's keys, config and checkpoint are right; returns its model, and the teacher if it is loaded."""
    for mistake in teacher_mistakes(settings):
        found.error(where, mistake)
    model = None
    if ('cfg' in settings) != ('model' in settings):
        model = found.attempt(where, 'the teacher to build', build_teacher_model, settings)
    if not settings.get('checkpoint'):
        return model, None
    if model is None:
        path = str(settings['checkpoint'])
        if '://' not in path and not Path(path).expanduser().is_file():
            found.error(where, f'Expected a checkpoint file but {path} does not exist. Check the path.')
        else:
            found.note(where, 'not checked: whether the checkpoint fits, because there is no model to load it into.')
        return None, None
    teacher = found.attempt(where, 'the teacher to load', load_teacher, model, settings)
    if teacher is not None:
        found.note(where, f'all {teacher.tensors} tensors loaded, {count(teacher.parameters)} parameters.')
    return model, teacher


def check_preprocessing(found: Findings, student: nn.Module, teacher: nn.Module) -> None:
    """Student and teacher see images normalised alike."""
    warning = preprocessing_warning(student, teacher)
    if warning:
        found.warning('teacher', warning)
