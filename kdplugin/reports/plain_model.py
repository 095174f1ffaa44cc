"""The plain mmdet/mmseg model of a run's config: a distillation config's student, alone."""

from __future__ import annotations

import copy
import warnings
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import kdplugin.registry  # noqa: F401 - makes types with the prefix 'kdplugin.' known
from kdplugin.errors import ConfigError


def is_distiller(model: Any) -> bool:
    """Tell whether a model config is a distillation: its type's last part is ``Distiller``."""
    kind = model.get('type')
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rsplit('.', 1)[-1] == 'Distiller'


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
        model = model.student
    plain = copy.deepcopy(model)
    if preprocessor:
        plain.setdefault('data_preprocessor', copy.deepcopy(preprocessor))
    return plain


def build_plain_model(config: Config) -> nn.Module:
    """Build ``plain_model_config`` in the config's own scope, in eval mode, with random weights.

    Warnings are left out: they advise on training, which has already said them.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return MODELS.build(plain_model_config(config)).eval()
