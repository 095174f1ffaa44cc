"""``kdplugin.DiffusionDistiller``: an image student that learns from a video transformer while it trains.

``kdplugin.Distiller`` probes models with pictures and asks a teacher what it sees in the student's batch. Here a batch
is prompts: what both are asked about is made in the step itself, by the teacher, and the answer is the loss. So this
has a builder of its own, on the same pairs, schedules, adapters, hook and checkpoints.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, cast

from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from torch import nn

from kdplugin.distill.diffusion.diffusion_distillation import DiffusionDistillation, PreparedTeacher, Prompts
from kdplugin.distill.diffusion.flow_steps import FlowSteps, flow_mistakes
from kdplugin.distill.diffusion.wan_teacher import WanTeacher, wan_teacher_mistakes
from kdplugin.distill.distiller import DistilledStudent, adapters_of, attach
from kdplugin.distill.pairs import parse_pairs
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.settings import SETTINGS, distiller_mistakes, parse_task_weight, plain
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError
from kdplugin.models.generators.flow import flow_schedule
from kdplugin.models.generators.text_encoder import EmbeddingCache, TextEncoder
from kdplugin.module_paths import did_you_mean, match_modules
from kdplugin.registry import MODELS

OWN_KEYS = ('text_encoder', 'flow', 'drop_prompt')
KEYS = (*(key for key in SETTINGS if key not in ('teachers', 'data_preprocessor')), *OWN_KEYS)
TEXT_KEYS = ('path', 'cache', 'max_length', 'dtype', 'device')


class DiffusionStudent(DistilledStudent):
    """Mixed into the class of a student at run time: mmengine's training step, and ``forward(prompt=, mode='loss')``.

    All else, names, weights, ``save_pretrained``, stays that of the student.
    """

    _distillation: DiffusionDistillation | None
    train_step, val_step, test_step = BaseModel.train_step, BaseModel.val_step, BaseModel.test_step
    parse_losses, _run_forward = BaseModel.parse_losses, BaseModel._run_forward

    def forward(self, *args: Any, mode: str = 'tensor', **kwargs: Any) -> Any:
        plain_forward = super(DistilledStudent, self).forward  # type: ignore[misc]
        if mode != 'loss':
            return plain_forward(*args, **kwargs)
        if self._distillation is None:
            raise ConfigError('Expected the student itself in a training step but got a copy. Train the original.')
        return self._distillation.step(
            cast(nn.Module, self), lambda *asked: plain_forward(*asked, return_dict=False)[0], kwargs['prompt'],
            kwargs.get('latents'), adapters_of(cast(nn.Module, self)),
        )  # fmt: skip

    def init_weights(self) -> None:
        """The student has its weights from when it was built."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return _blank_student, (type(self).__mro__[3],), self.__dict__


@cache
def _student_class(student_class: type) -> type:
    return type(student_class.__name__, (DiffusionStudent, student_class), {'__module__': student_class.__module__})


def _blank_student(student_class: type) -> nn.Module:
    return cast(nn.Module, object.__new__(_student_class(student_class)))


@MODELS.register_module(name='DiffusionDistiller')
def build_diffusion_distiller(**config: Any) -> nn.Module:
    """Build an image student and make it learn from a video transformer.

    What comes back *is* the student, as with ``kdplugin.Distiller``; batches are those of ``kdplugin.PromptDataset``.

    Args:
        student: its model config, ``kdplugin.WanLiteStudent``.
        teacher: dict(path=, dtype=, offload=, guidance=), see ``WanTeacher``.
        text_encoder: dict(cache=, path=, max_length=512, dtype=, device=): where encoded prompts are kept; the folder
            is the teacher's by default, see ``TextEncoder``.
        flow: dict(size=(H, W), steps=50, ode_steps=4), see ``FlowSteps``.
        drop_prompt: how likely a prompt is replaced by the empty one.
        pairs, frozen, task_weight, alpha: as for ``kdplugin.Distiller``; the velocity's loss is the task.

    Raises:
        ConfigError, PathError, TapError, CheckpointError: each says what was expected, found, and the cure.
    """
    for mistake in diffusion_mistakes(config):
        raise mistake
    student = ROOT_MODELS.build(copy.deepcopy(config['student']))
    with preserved_rng():
        distillation = build_diffusion(student, config)
    return attach_diffusion(student, distillation)


def attach_diffusion(student: nn.Module, distillation: DiffusionDistillation) -> nn.Module:
    """Make a student distil, see ``attach``, and take batches of prompts; returns the same object."""
    attach(student, distillation, _student_class)
    student.add_module('data_preprocessor', BaseDataPreprocessor())
    return student


def build_diffusion(student: nn.Module, config: Mapping[str, Any]) -> DiffusionDistillation:
    """Return what a student is to learn, of a config without ``diffusion_mistakes``; not yet prepared for it."""
    teacher = WanTeacher(**config['teacher'])
    check_fit(student, teacher)
    flow = {'size': (0, 0), 'steps': 50, 'ode_steps': 4, **config['flow']}
    prompts = open_prompts(teacher, config['text_encoder'], config.get('drop_prompt', 0.0))
    steps = FlowSteps(
        flow_schedule(teacher.scheduler, flow['steps']), teacher.settings['in_channels'],
        (flow['size'][0], flow['size'][1]), flow['ode_steps'],
    )  # fmt: skip
    return DiffusionDistillation(
        parse_pairs(config.get('pairs') or {}),
        {'teacher': cast(Teacher, PreparedTeacher(teacher, prompts))},
        **parse_task_weight(config),  # type: ignore[arg-type]
        settings={key: plain(value) for key, value in config.items() if key != 'student'},
        frozen=match_modules(student, config.get('frozen') or (), 'student'),
        flow=steps,
        prompts=prompts,
    )


def open_prompts(teacher: WanTeacher, config: Mapping[str, Any], drop: float) -> Prompts:
    """Return the encoded prompts of a ``text_encoder`` config."""
    settings = {key: value for key, value in config.items() if key not in ('path', 'cache')}
    encoder = TextEncoder(config.get('path') or teacher.folder.root, **settings)
    return Prompts(EmbeddingCache(config['cache'], encoder, encoder.fingerprint, encoder.max_length), encoder, drop)


def check_fit(student: Any, teacher: WanTeacher) -> None:
    """Raise ConfigError unless the student reads and writes the teacher's latents and reads its text."""
    own, other = student.config, teacher.settings
    wanted = {key: other[key] for key in ('in_channels', 'out_channels', 'text_dim')} | {
        'patch_size': other['patch_size'][-1]
    }
    found = {key: own[key] for key in wanted} | {'out_channels': own['out_channels'] or own['in_channels']}
    if wanted != found:
        raise ConfigError(
            f'Expected a student of the latents and text of its teacher, {wanted}, but got {found}. Correct it.'
        )


def diffusion_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the keys of a ``kdplugin.DiffusionDistiller`` config."""
    for key in config:
        if key not in KEYS:
            yield ConfigError(
                f'Expected keys {list(KEYS)} in kdplugin.DiffusionDistiller but got {key!r}.{did_you_mean(key, KEYS)}'
            )
    for key in ('teacher', 'text_encoder', 'flow'):
        if not isinstance(config.get(key), Mapping):
            yield ConfigError(
                f'Expected {key}=dict(...) in kdplugin.DiffusionDistiller but got {config.get(key)!r}. Add it; '
                'configs/wan/wan-lite_tiny.py has an example.'
            )
            return
    yield from distiller_mistakes({key: config[key] for key in SETTINGS if key in KEYS and key in config})
    yield from wan_teacher_mistakes(config['teacher'])
    yield from flow_mistakes(config['flow'])
    text = config['text_encoder']
    for key in text:
        if key not in TEXT_KEYS:
            yield ConfigError(
                f'Expected keys {list(TEXT_KEYS)} in text_encoder but got {key!r}.{did_you_mean(key, TEXT_KEYS)}'
            )
    if not text.get('cache'):
        yield ConfigError("Expected a folder in text_encoder but got none. Write cache='work_dirs/wan_text'.")
    drop = config.get('drop_prompt', 0.0)
    if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 <= drop < 1:
        yield ConfigError(f'Expected drop_prompt from 0 to below 1 but got {drop!r}. 0.1 is usual.')
