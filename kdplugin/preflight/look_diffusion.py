"""Layers of a video teacher and of its image student, listed without their values: billions of them take no memory."""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from kdplugin.distill.model_config import plain_model_config
from kdplugin.models.generators.wan_files import empty_transformer, transformer_config, wan_folder
from kdplugin.preflight.layers import Layer, recorded

META = 'meta'
TOKENS = 512
"""Of the text, where the config does not say."""


def diffusion_layers(config: Config, owner: str) -> tuple[list[Layer], str]:
    """Return the layers of the student or the teacher of a ``kdplugin.DiffusionDistiller``, and how it was run.

    Args:
        config: of the training.
        owner: 'student', or else the teacher is meant, whose experts are alike.

    Raises:
        CheckpointError: the teacher's folder or its config is not there.
        ConfigError: its path, or the student, is wrong.
    """
    settings = config.model
    height, width = settings.flow.size
    if owner == 'student':
        with torch.device(META):
            model: Any = MODELS.build(copy.deepcopy(plain_model_config(config)))
    else:
        folder = next(iter(wan_folder(settings.teacher.path).experts.values()))
        model = empty_transformer(transformer_config(folder)).to(META)
    frame = (height, width) if owner == 'student' else (1, height, width)
    latents = torch.zeros(1, model.config.in_channels, *frame, device=META)
    tokens = settings.text_encoder.get('max_length') or TOKENS
    text = torch.zeros(1, tokens, model.config.text_dim, device=META)
    layers = recorded(model, lambda: model(latents, torch.zeros(1, device=META), text), None)
    return layers, f'on latents of {height}x{width} and {tokens} tokens'
