"""``kdplugin.Distiller``: build a student that distils while it trains, and is a plain student in every other way."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from kdplugin.distill.distillation import Distillation
from kdplugin.distill.pairs import parse_pairs
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.settings import distiller_mistakes, parse_task_weight, plain, teacher_configs, teacher_weights
from kdplugin.distill.teachers.preprocessing import preprocessing_warning
from kdplugin.distill.teachers.teacher import build_teacher
from kdplugin.module_paths import match_modules
from kdplugin.registry import MODELS

ADAPTERS = '_kd'


class DistilledStudent:
    """Mixed into the class of a student at run time: same names, same weights, another ``forward(mode='loss')``.

    The teacher hangs on a plain attribute, so it is in no ``parameters()``, ``state_dict()``, ``train()``, ``to()``
    or copy. Adapters are trained as ``_kd.*`` but are not part of ``state_dict()``.
    """

    _distillation: Distillation | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        mode = kwargs.get('mode', args[2] if len(args) > 2 else 'tensor')
        if mode != 'loss' or self._distillation is None:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        return self._distillation.losses(self, super().forward, args, kwargs, adapters_of(self))  # type: ignore

    def train(self, mode: bool = True) -> DistilledStudent:
        super().train(mode)  # type: ignore[misc]
        if self._distillation is not None:
            frozen = set(self._distillation.frozen)
            for name, module in self.named_modules():  # type: ignore[attr-defined]
                if name in frozen:
                    module.eval()
        return self

    def init_weights(self) -> None:
        with without_adapters(self):  # type: ignore[arg-type]
            super().init_weights()  # type: ignore[misc]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        with without_adapters(self):  # type: ignore[arg-type]
            return super().state_dict(*args, **kwargs)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _blank_student, (type(self).__mro__[2],), self.__dict__


@contextlib.contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Take the adapters out of the module tree for the block."""
    adapters = model._modules.pop(ADAPTERS, None)
    try:
        yield
    finally:
        if adapters is not None:
            model._modules[ADAPTERS] = adapters


@cache
def _distilled_class(student_class: type) -> type:
    return type(student_class.__name__, (DistilledStudent, student_class), {'__module__': student_class.__module__})


def _blank_student(student_class: type) -> nn.Module:
    return object.__new__(_distilled_class(student_class))


def _forget_adapters(module: nn.Module, incompatible: Any) -> None:
    """Keep loaders from calling adapters missing: they are never in ``state_dict``."""
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if ADAPTERS not in key.split('.')]


def distillation_of(model: nn.Module) -> Distillation | None:
    """Return the distillation of a student built by ``kdplugin.Distiller``, None for any other model."""
    return getattr(model, '_distillation', None)


def adapters_of(model: nn.Module) -> nn.ModuleDict:
    """Return the adapters of a student by pair name; empty if it has none."""
    return model._modules.get(ADAPTERS) or nn.ModuleDict()  # type: ignore[return-value]


@MODELS.register_module(name='Distiller')
def build_distiller(**config: Any) -> nn.Module:
    """Build a student and make it learn from a teacher.

    What comes back *is* the student: its class is extended, its parameter names, optimizer groups, hooks and
    checkpoints stay those of the plain config.

    Args:
        student: the student's own model config.
        teacher: ``dict(cfg= or model=, checkpoint=, trust_checkpoint=False, weight=1.0)``, see ``build_teacher``;
            its weight is a factor of all its pairs.
        teachers: instead of ``teacher``, several by name; each pair then names its own.
        pairs: by name, ``dict(tap= or student_tap= and teacher_tap=, loss=, weight=1.0)``, or ``type`` and the settings
            of a method. How much they count: ``weight`` (a number or a schedule, see ``parse_schedule``) or
            ``target_ratio`` and ``calibration_iters``; ``warmup``, ``stop_after``, ``by_epoch``; ``on_nan``.
        frozen: paths or shell patterns of student modules and parameters that must not move; modules stay in eval
            mode, so running statistics rest too.
        task_weight: factor of the student's own losses, 1.0 by default; a number or a schedule.
        alpha: instead of ``task_weight``, a number or schedule from 0 to 1: the total is 1 - alpha times the student's
            own losses plus alpha times the weighted pairs.
        data_preprocessor: handed in by the Runner for configs that have it at the top; goes to the student.

    Raises:
        ConfigError, PathError, TapError, CheckpointError: each says what was expected, found, and the cure.
    """
    for mistake in distiller_mistakes(config):
        raise mistake
    student_cfg = copy.deepcopy(config['student'])
    if config.get('data_preprocessor') is not None:
        student_cfg.setdefault('data_preprocessor', config['data_preprocessor'])
    student = ROOT_MODELS.build(student_cfg)
    with preserved_rng():
        distillation = _build_distillation(student, config)
    return attach(student, distillation)


def attach(
    student: nn.Module, distillation: Distillation, extended: Callable[[type], type] = _distilled_class
) -> nn.Module:
    """Size the adapters, freeze what is to be frozen, and make a student distil; returns the same object.

    Args:
        student: whose class becomes what ``extended`` makes of it.
        distillation: what it learns from.
        extended: returns a class of students that distil, from the student's own.
    """
    with preserved_rng():
        adapters = distillation.prepare(student)
    kind: type = type(student)
    student.__class__ = extended(kind)
    student._distillation = distillation  # type: ignore[assignment]
    freeze(student, distillation.frozen)
    if adapters:
        student.add_module(ADAPTERS, adapters)
        student.register_load_state_dict_post_hook(_forget_adapters)
    return student


def _build_distillation(student: nn.Module, config: Mapping[str, Any]) -> Distillation:
    pairs, weights = parse_pairs(config.get('pairs') or {}), teacher_weights(config)
    teachers = {name: build_teacher(one) for name, one in teacher_configs(config).items()}
    for teacher in teachers.values():
        warning = '' if teacher.input.preprocess == 'own' else preprocessing_warning(student, teacher.module)
        if warning:
            print_log(warning, logger='current', level=logging.WARNING)
    return Distillation(
        pairs,
        teachers,
        **parse_task_weight(config),  # type: ignore[arg-type]
        teacher_weights=weights,
        settings={key: plain(value) for key, value in config.items() if key not in ('student', 'data_preprocessor')},
        frozen=match_modules(student, config.get('frozen') or (), 'student'),
    )


def freeze(student: nn.Module, names: Sequence[str]) -> None:
    """Take named modules and parameters out of training."""
    modules, parameters = dict(student.named_modules()), dict(student.named_parameters())
    for name in names:
        (modules[name] if name in modules else parameters[name]).requires_grad_(False)
