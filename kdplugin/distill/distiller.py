"""``kdplugin.Distiller``: build a student that distils while it trains, and is a plain student in every other way."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from mmengine.logging import print_log
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from kdplugin.distill.distillation import Distillation
from kdplugin.distill.pairs import check_weight, parse_pairs
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.teacher import build_teacher
from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean, match_modules
from kdplugin.registry import MODELS

ADAPTERS = '_kd'
SETTINGS = ('student', 'teacher', 'pairs', 'frozen', 'task_weight', 'data_preprocessor')


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
        teacher: ``dict(cfg= or model=, checkpoint=, trust_checkpoint=False)``, see ``build_teacher``.
        pairs: by name, ``dict(tap= or student_tap= and teacher_tap=, loss=, weight=1.0)``.
        frozen: paths or shell patterns of student modules and parameters that must not move; modules stay in eval
            mode, so running statistics rest too.
        task_weight: factor of the student's own losses, 1.0 by default.
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


def distiller_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the keys of a ``kdplugin.Distiller`` config."""
    for key in config:
        if key not in SETTINGS:
            yield ConfigError(
                f'Expected keys {list(SETTINGS)} in kdplugin.Distiller but got {key!r}.{did_you_mean(key, SETTINGS)}'
            )
    if not config.get('student'):
        yield ConfigError('Expected a student in kdplugin.Distiller but got none. Write student=_base_.model.')
    pairs = config.get('pairs') or {}
    if not isinstance(pairs, Mapping) or not all(isinstance(pair, Mapping) for pair in pairs.values()):
        yield ConfigError(
            f'Expected pairs to be a dict of dicts by name but got {pairs!r}. Write pairs=dict(name=dict(...)).'
        )
    if pairs and not config.get('teacher'):
        yield ConfigError('Expected a teacher for the pairs but got none. Write teacher=dict(cfg=..., checkpoint=...).')
    frozen = config.get('frozen') or ()
    if not isinstance(frozen, Sequence) or isinstance(frozen, str):
        yield ConfigError(f"Expected frozen to be a list of patterns but got {frozen!r}. Write frozen=['backbone'].")
    try:
        check_weight(config.get('task_weight', 1.0), 'task_weight')
    except ConfigError as error:
        yield error


def attach(student: nn.Module, distillation: Distillation) -> nn.Module:
    """Size the adapters, freeze what is to be frozen, and make a student distil; returns the same object."""
    with preserved_rng():
        adapters = distillation.prepare(student)
    student.__class__ = _distilled_class(type(student))  # type: ignore[arg-type]
    student._distillation = distillation  # type: ignore[assignment]
    freeze(student, distillation.frozen)
    if adapters:
        student.add_module(ADAPTERS, adapters)
        student.register_load_state_dict_post_hook(_forget_adapters)
    return student


def _build_distillation(student: nn.Module, config: Mapping[str, Any]) -> Distillation:
    pairs = parse_pairs(config.get('pairs') or {})
    teacher = build_teacher(config['teacher']) if config.get('teacher') else None
    warning = preprocessing_warning(student, teacher.module) if teacher is not None else ''
    if warning:
        print_log(warning, logger='current', level=logging.WARNING)
    return Distillation(
        pairs,
        teacher,
        float(config.get('task_weight', 1.0)),
        settings={key: plain(value) for key, value in config.items() if key not in ('student', 'data_preprocessor')},
        frozen=match_modules(student, config.get('frozen') or (), 'student'),
    )


def freeze(student: nn.Module, names: Sequence[str]) -> None:
    """Take named modules and parameters out of training."""
    modules, parameters = dict(student.named_modules()), dict(student.named_parameters())
    for name in names:
        (modules[name] if name in modules else parameters[name]).requires_grad_(False)


def preprocessing_difference(student: nn.Module, teacher: nn.Module) -> str:
    """Describe how the teacher's input normalisation differs from the student's; empty where it does not."""
    ours, theirs = (getattr(model, 'data_preprocessor', None) for model in (student, teacher))
    differences = []
    for name in ('mean', 'std', 'channel_conversion'):
        one, other = (_plain_setting(getattr(side, name, None)) for side in (ours, theirs))
        if one != other:
            differences.append(f'{name} {one} and {other}')
    return '; '.join(differences)


def _plain_setting(value: Any) -> Any:
    return value.flatten().tolist() if isinstance(value, Tensor) else value


def preprocessing_warning(student: nn.Module, teacher: nn.Module) -> str:
    """Return what to tell a person whose teacher was trained on images normalised in another way, or ''."""
    difference = preprocessing_difference(student, teacher)
    return difference and (
        f'Expected student and teacher to normalise images alike but got {difference}. The teacher sees the '
        "student's images: train the student with the teacher's data_preprocessor."
    )


def plain(value: Any) -> Any:
    """Reduce a config value to dicts, lists, numbers and strings that any safe reader can load."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
