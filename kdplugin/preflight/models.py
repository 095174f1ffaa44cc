"""Do the student and the teacher build, and does the teacher load?"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from kdplugin.checkpoint_schemes import resolve
from kdplugin.distill.distiller import freeze
from kdplugin.distill.model_config import is_distillation, plain_model_config
from kdplugin.distill.teachers.preprocessing import preprocessing_warning
from kdplugin.distill.teachers.teacher import Teacher, build_teacher_model, load_teacher, teacher_mistakes
from kdplugin.errors import CheckpointError
from kdplugin.module_paths import match_modules
from kdplugin.preflight.addresses import check_address
from kdplugin.preflight.data import near_files
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.initial_weights import check_pretrained_fits
from kdplugin.reports.tables import count


def student_path(config: Config) -> str:
    """Return where the student's model is in a config."""
    model = config.get('model')
    return 'model.student' if isinstance(model, Mapping) and is_distillation(model) else 'model'


def check_student(found: Findings, config: Config) -> tuple[nn.Module | None, bool]:
    """The student builds as the Runner would build it; returns it, and whether its first weights are here."""
    where = student_path(config)
    settings = found.attempt(where, 'a student', plain_model_config, config)
    if settings is None:
        return None, False
    student = found.attempt(where, 'the student to build', MODELS.build, copy.deepcopy(settings))
    ready = all(is_here(file) for file in (*pretrained_files(settings), *hub_files(settings)))
    if student is not None:
        size = count(sum(parameter.numel() for parameter in student.parameters()))
        found.note(where, f'{type(student).__name__}, {size} parameters.')
        if ready and hasattr(student, 'init_weights'):  # a model of diffusers has none
            before = len(found.errors)
            found.attempt(where, 'its weights to be initialised', student.init_weights)
            if len(found.errors) == before:
                check_pretrained_fits(found, where, student)
    return student, ready


def check_pretrained(found: Findings, where: str, files: Sequence[str]) -> None:
    """The files that a model starts from exist, as far as they are not downloaded when training begins."""
    for path in files:
        if '://' in path:
            if not is_here(path):
                found.note(where, f'not checked: {path}, which is downloaded when training begins.')
        elif not is_here(path):
            found.error(
                where,
                f'Expected the weights {path} but there is no such file.{near_files(path)} Correct init_cfg or '
                'load_from.',
            )


def check_initial_weights(found: Findings, settings: Any, path: str) -> None:
    """Every ``init_cfg`` of a model is a dict, names the file that it takes, and an address that somebody reads."""
    if isinstance(settings, Mapping):
        own = settings.get('init_cfg')
        for one in own if isinstance(own, list | tuple) else [own] if own else ():
            _check_initial(found, f'{path}.init_cfg', one)
        for key, value in settings.items():
            check_initial_weights(found, value, f'{path}.{key}')
    elif isinstance(settings, list | tuple):
        for number, value in enumerate(settings):
            check_initial_weights(found, value, f'{path}.{number}')


def _check_initial(found: Findings, where: str, settings: Any) -> None:
    if not isinstance(settings, Mapping):
        found.error(
            where,
            f"Expected a dict but got {settings!r}. Write dict(type='Pretrained', checkpoint=...).",
        )
    elif settings.get('type') == 'Pretrained':
        file = settings.get('checkpoint')
        if not file:
            found.error(
                where, 'Expected a checkpoint beside Pretrained but got none. Give the file or remove init_cfg.'
            )
        else:
            check_address(found, where, str(file))
    else:
        _check_layers(found, where, settings.get('layer'))


def _check_layers(found: Findings, where: str, layers: Any) -> None:
    """A name of a layer with a slip matches none, and mmengine says nothing; names of other packages are not judged."""
    for name in layers if isinstance(layers, list | tuple) else [layers] if layers else ():
        if isinstance(name, str) and not hasattr(nn, name) and not name.startswith('_'):
            same = [one for one in dir(nn) if one.lower() == name.lower()]
            near = same or difflib.get_close_matches(name, dir(nn), n=1, cutoff=0.9)
            if near:
                found.error(
                    f'{where}.layer',
                    f'Expected layers of torch but got {name!r}, which matches none. Did you mean {near[0]!r}?',
                )


def is_here(path: str) -> bool:
    """Tell whether a file is on this disk, downloaded ones included."""
    if path.startswith('timm://'):
        return False
    if '://' in path:
        try:
            path = resolve(path)
        except CheckpointError:
            return False
        if '://' in path:
            path = str(Path(torch.hub.get_dir()) / 'checkpoints' / Path(urlparse(path).path).name)
    return Path(path).expanduser().is_file()


def hub_files(settings: Any) -> Iterator[str]:
    """Yield an address for each part of a model that takes its weights from timm's hub."""
    if isinstance(settings, Mapping):
        if settings.get('pretrained') is True and 'model_name' in settings:
            yield f'timm://{settings["model_name"]}'
        for value in settings.values():
            yield from hub_files(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from hub_files(value)


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
            dict.fromkeys(
                found.attempt('model.frozen', 'a pattern', match_modules, student, [pattern], 'student') or ()
            )
        )
    freeze(student, list(names))
    if names and not any(parameter.requires_grad for parameter in student.parameters()):
        found.error(
            'model.frozen',
            f'Expected something left to train but {list(patterns)} freeze everything. Remove a pattern.',
        )
    return list(names)


def check_teacher_keys(found: Findings, settings: Mapping[str, Any], where: str) -> None:
    """The teacher's keys are right, and the files that they name exist."""
    for mistake in teacher_mistakes(settings):
        found.error(where, mistake)
    path = settings.get('checkpoint')
    if isinstance(path, str) and path and '://' not in path and not is_here(path):
        found.error(
            f'{where}.checkpoint',
            f'Expected a checkpoint file but {path} does not exist.{near_files(path)} Check the path.',
        )
    elif path is not None and not isinstance(path, str):
        found.error(f'{where}.checkpoint', f'Expected a path but got {path!r}. Give the file of the teacher.')


def check_teacher(
    found: Findings, settings: Mapping[str, Any], where: str = 'model.teacher', download: bool = False
) -> tuple[nn.Module | None, Teacher | None]:
    """The teacher builds and its checkpoint fits; returns its model, and the teacher.

    A checkpoint that would have to be downloaded is not read without ``download``: the teacher then has random weights,
    and ``sha256`` is empty.
    """
    model = None
    if ('cfg' in settings) != ('model' in settings):
        model = found.attempt(where, 'the teacher to build', build_teacher_model, settings)
    path = settings.get('checkpoint')
    if not isinstance(path, str) or not path:
        return model, None
    if model is None:
        found.note(where, 'not checked: whether the checkpoint fits, because there is no model to load it into.')
        return None, None
    if not is_here(path) and not (download and '://' in path):
        cure = ' Give --download to fetch it.' if '://' in path else ''
        found.note(
            where, f'not checked: whether {path} fits: it is not here. Its weights are random in what follows.{cure}'
        )
        if list(teacher_mistakes(settings)):
            return model, None
        return model, Teacher(model.requires_grad_(False).eval(), path, '', 0, 0, config=settings)
    teacher = found.attempt(where, 'the teacher to load', load_teacher, model, settings)
    if teacher is not None:
        found.note(where, f'all {teacher.tensors} tensors loaded, {count(teacher.parameters)} parameters.')
    return model, teacher


def check_preprocessing(found: Findings, student: Any, teacher: Any, where: str = 'model.teacher') -> None:
    """Student and teacher see images normalised and padded alike.

    Args:
        student: what has a ``data_preprocessor``.
        teacher: likewise.
    """
    warning = preprocessing_warning(student, teacher)
    if warning:
        found.warning(where, warning)
    ours, theirs = (
        getattr(getattr(one, 'data_preprocessor', None), 'pad_size_divisor', 1) for one in (student, teacher)
    )
    if isinstance(ours, int) and isinstance(theirs, int) and theirs > 1 and ours % theirs:
        found.warning(
            f'{where}.data_preprocessor.pad_size_divisor' if where == 'model.teacher' else where,
            f'Expected images padded to multiples of {theirs}, as the teacher needs, but the student pads to {ours}. '
            "Set pad_size_divisor of the student's data_preprocessor.",
        )
