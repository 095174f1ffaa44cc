"""What a teacher's config tells before anything is built."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from kdplugin.config_files import parse
from kdplugin.distill.model_config import plain_model_config
from kdplugin.distill.teachers.teacher import teacher_model_config
from kdplugin.preflight.findings import Findings


def teacher_model(found: Findings, settings: Mapping[str, Any], where: str) -> Any:
    """Return the model config of a teacher, None with an error where there is none to be had."""
    if ('cfg' in settings) == ('model' in settings) or not isinstance(settings.get('cfg', ''), str):  # teacher_mistakes
        return None
    return found.attempt(where, 'the config of the teacher', teacher_model_config, settings)


def whole_config(settings: Mapping[str, Any]) -> Config | None:
    """Return the file that a teacher was trained with, None where its config names none."""
    file = settings.get('cfg')
    if not isinstance(file, str):
        return None
    try:
        return parse(file)
    except Exception:  # said by teacher_model
        return None


def with_preprocessor(settings: Any) -> Any:
    """Return something that has the ``data_preprocessor`` of a model config, built, and nothing else."""
    own = settings.get('data_preprocessor') if isinstance(settings, Mapping) else None
    if not isinstance(own, Mapping):
        return None
    own = copy.deepcopy(dict(own))
    own.setdefault('_scope_', settings.get('_scope_'))
    try:
        return SimpleNamespace(data_preprocessor=MODELS.build(own))
    except Exception:  # its type or keys are said elsewhere
        return None


def student_settings(config: Config) -> Any:
    """Return the model config of the student with its preprocessor; None where it cannot be read."""
    try:
        return plain_model_config(config)
    except Exception:  # said elsewhere
        return None


def same_file(student: Config, teacher: Mapping[str, Any]) -> bool:
    """Tell whether student and teacher begin with the same file of weights."""
    one, other = student.get('load_from'), teacher.get('checkpoint')
    if not isinstance(one, str) or not isinstance(other, str) or '://' in one or '://' in other:
        return False
    return Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
