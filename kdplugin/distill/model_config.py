"""The student inside a model config."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from kdplugin.errors import ConfigError


def is_distiller(model: Mapping[str, Any]) -> bool:
    """Tell whether a model config is a distillation: its type's last part is ``Distiller``."""
    kind = model.get('type')
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rsplit('.', 1)[-1] == 'Distiller'


def is_distillation(model: Mapping[str, Any]) -> bool:
    """Tell whether a model config distils in any way, so that its run needs a DistillationHook."""
    kind = model.get('type')
    name = (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rsplit('.', 1)[-1]
    return is_distiller(model) or name in ('DiffusionDistiller', 'build_diffusion_distiller')


def learns_velocities(model: Mapping[str, Any]) -> bool:
    """Tell whether a model config is a distillation from a video transformer, which mmdet and mmseg know nothing of."""
    return is_distillation(model) and not is_distiller(model)


def student_config(model: Mapping[str, Any]) -> Any:
    """Return a copy of the student of a distillation, or of any other model config as it is."""
    return copy.deepcopy(model['student'] if is_distillation(model) else model)


def plain_model_config(config: Config) -> ConfigDict:
    """Return the student's model config with the config's data preprocessor, as the Runner would build it.

    Raises:
        ConfigError: there is no model in the config.
    """
    model = config.get('model')
    if not model:
        raise ConfigError(f'Expected a model in {config.filename} but got none. Give the config of a training.')
    preprocessor = config.get('data_preprocessor')
    if is_distiller(model):
        preprocessor = model.get('data_preprocessor') or preprocessor
    plain = student_config(model)
    if preprocessor:
        plain.setdefault('data_preprocessor', copy.deepcopy(preprocessor))
    return plain
