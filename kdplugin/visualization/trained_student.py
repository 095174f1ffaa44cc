"""The student of a distillation with the weights of a checkpoint, or with those that its training begins from."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

from kdplugin.distill.distillation import Distillation
from kdplugin.distill.distiller import adapters_of, distillation_of
from kdplugin.distill.model_config import is_distiller
from kdplugin.distill.teachers.teacher_model import load_strictly
from kdplugin.errors import ConfigError
from kdplugin.hooks.distillation_hook import KEY
from kdplugin.preflight.quiet import quiet
from kdplugin.registry import HOOKS
from kdplugin.weights.export import student_weights
from kdplugin.weights.reading.io import read_checkpoint


@dataclass(frozen=True)
class Subject:
    """A student that is looked at.

    Args:
        student: in eval mode, with its distillation.
        state: how its weights came to be, for titles.
        untrained: pairs whose adapters have random weights.
    """

    student: nn.Module
    state: str
    untrained: frozenset[str]

    @property
    def distillation(self) -> Distillation:
        found = distillation_of(self.student)
        assert found is not None  # noqa: S101 - open_subject made sure
        return found


def open_subject(config: Config, checkpoint: str | None, device: str = 'cpu') -> Subject:
    """Build a distillation's student and give it the weights of a checkpoint, or those with which training begins.

    Raises:
        ConfigError: the model is no ``kdplugin.Distiller``.
        CheckpointError: the checkpoint does not fit.
    """
    model = config.get('model') or {}
    if not is_distiller(model):
        raise ConfigError(
            f'Expected a model of type kdplugin.Distiller in {config.filename} but got {model.get("type")}. Give the '
            'config of the distillation.'
        )
    init_default_scope(config.get('default_scope') or 'mmengine')
    with quiet(logging.WARNING):
        student, state, untrained = _with_weights(config, checkpoint)
    return Subject(student.eval().to(device), state, untrained)


def _with_weights(config: Config, checkpoint: str | None) -> tuple[nn.Module, str, frozenset[str]]:
    """Return the student, how its weights came to be, and the pairs whose adapters are random."""
    torch.manual_seed((config.get('randomness') or {}).get('seed') or 0)
    settings = copy.deepcopy(config.model)
    if config.get('data_preprocessor'):
        settings.setdefault('data_preprocessor', copy.deepcopy(config.data_preprocessor))
    student = MODELS.build(settings)
    adapters = adapters_of(student)
    if checkpoint is None:
        return student, _begin(config, student), frozenset(adapters)
    content = read_checkpoint(checkpoint)
    load_strictly(student, student_weights(content, checkpoint), checkpoint)
    saved = (content.get(KEY) or {}).get('adapters')
    if saved is not None:
        load_strictly(adapters, saved, f'adapters of {checkpoint}')
    return student, f'student of {checkpoint}', frozenset(adapters if saved is None else ())


def _begin(config: Config, student: nn.Module) -> str:
    """Give a student the weights with which training begins; return what they are."""
    student.init_weights()  # type: ignore[operator]
    if config.get('load_from'):
        load_checkpoint(student, config.load_from, map_location='cpu', strict=False)
        return f'student from {config.load_from}, not yet trained'
    sources = []
    for settings in config.get('custom_hooks') or ():
        if str(settings.get('type')).rpartition('.')[2] == 'WeightProjectionHook':
            hook = HOOKS.build(copy.deepcopy(settings))
            hook.project_into(student)
            sources.append(hook.source)
    start = f'projected from {", ".join(sources)}' if sources else 'as it is initialised'
    return f'student {start}, not yet trained'
