"""The plain mmdet/mmseg model of a run's config: a distillation config's student, alone."""

from __future__ import annotations

import warnings

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import kdplugin.registry  # noqa: F401 - makes types with the prefix 'kdplugin.' known
from kdplugin.distill.model_config import plain_model_config


def build_plain_model(config: Config) -> nn.Module:
    """Build ``plain_model_config`` in the config's own scope, in eval mode, with random weights.

    Warnings are left out: they advise on training, which has already said them.
    """
    init_default_scope(config.get('default_scope', 'mmengine'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return MODELS.build(plain_model_config(config)).eval()
