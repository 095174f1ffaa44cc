"""The models of a config, built to be looked at: listed layer by layer, or measured."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from kdplugin.distill.distillation import Distillation
from kdplugin.distill.distiller import attach
from kdplugin.distill.model_config import is_distiller, learns_velocities, plain_model_config
from kdplugin.distill.pairs import parse_pairs
from kdplugin.distill.probe import probe_sizes
from kdplugin.distill.settings import teacher_configs
from kdplugin.distill.teachers.teacher import Teacher, build_teacher_model
from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import host_mistakes
from kdplugin.preflight.layers import Layer, layers_of
from kdplugin.preflight.memory import BATCHES, Estimate, estimate, training_sizes


def build_model(config: Config, owner: str) -> nn.Module:
    """Build the student or a teacher of a config, with random weights.

    Args:
        config: of the training.
        owner: 'student', 'teacher', or the name of one of several teachers.

    Raises:
        ConfigError: there is no such model, or it cannot be built.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    with host_mistakes():
        if owner == 'student':
            return MODELS.build(copy.deepcopy(plain_model_config(config)))
        model = config.get('model')
        teachers = teacher_configs(model) if isinstance(model, Mapping) and is_distiller(model) else {}
        _require_known(owner, ['student', *teachers])
        return build_teacher_model(teachers[owner])


def _require_known(owner: str, known: list[str]) -> None:
    if owner not in known:
        raise ConfigError(f'Expected one of {known} but got {owner!r}.{did_you_mean(owner, known)} Choose one.')


def list_layers(config: Config, owner: str) -> tuple[list[Layer], str]:
    """Return the layers of the student or a teacher, and how it was run to see them."""
    if _learns_velocities(config):
        from kdplugin.preflight.look_diffusion import diffusion_layers  # needs diffusers, which others do not

        _require_known(owner, ['student', 'teacher'])
        return diffusion_layers(config, owner)
    model = build_model(config, owner)
    return layers_of(model, probe_sizes(model))


def _learns_velocities(config: Config) -> bool:
    model = config.get('model')
    return isinstance(model, Mapping) and learns_velocities(model)


def estimate_memory(config: Config) -> list[Estimate]:
    """Estimate the memory of a training step for the config's image size, for batches around its own.

    Raises:
        ConfigError: the models are shown no images.
    """
    if _learns_velocities(config):
        raise ConfigError(
            'Expected models of images to measure but got a kdplugin.DiffusionDistiller. docs/wan.md has its memory.'
        )
    student, model = build_model(config, 'student'), config.model
    if is_distiller(model):
        teachers = {
            name: Teacher(build_teacher_model(one).requires_grad_(False).eval(), '', '', 0, 0, config=one)
            for name, one in teacher_configs(model).items()
        }
        distillation = Distillation(parse_pairs(model.get('pairs') or {}), teachers, {}, [], attended=True)
        distillation.at_peak()
        distillation.guard.silent = True
        student = attach(student, distillation)
    loader = config.get('train_dataloader')
    own = loader.get('batch_size') if isinstance(loader, Mapping) else None
    batches = sorted({*BATCHES, own} if isinstance(own, int) and own > 0 else set(BATCHES))
    return estimate(config, student, training_sizes(config), batches)
