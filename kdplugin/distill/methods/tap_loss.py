"""The usual way of distilling: one layer looks at another, level by level, by a loss between tensors."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from kdplugin.distill.adapters import LevelAdapters, build_adapters
from kdplugin.distill.layouts import Layout, layout_of, match_size, parse_layout
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import DistillationLoss
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import MODELS

GIVEN = ('labels', 'boxes', 'image_size')
"""What the engine hands to losses beside the two tensors."""


@MODELS.register_module()
class TapLoss(Method):
    """Mean over levels of a loss between the tensors of two taps; a pair without ``type`` is one.

    Args:
        name: of the pair.
        loss: config of a ``DistillationLoss``.
        student_layout: axes of the student's tensors, see ``Layout``; by default four are (N, C, H, W), two (N, C), and
            three are (N, L, C) in features, (N, C, L) in logits.
        teacher_layout: axes of the teacher's.
        taps: see ``Method``.
    """

    def __init__(
        self, name: str, *, loss: Any = None, student_layout: Any = None, teacher_layout: Any = None, **taps: Any
    ) -> None:
        if loss is None or any((taps.get(side) or taps.get('tap')) is None for side in ('student_tap', 'teacher_tap')):
            raise ConfigError(
                f'Expected pair {name!r} to have loss and tap (or student_tap and teacher_tap) but got '
                f'{sorted(key for key, value in dict(taps, loss=loss).items() if value is not None)}. '
                "Write dict(tap='backbone', loss=dict(type='kdplugin.CosineLoss'), weight=1.0)."
            )
        super().__init__(name, **taps)
        self.loss = build_loss(name, loss)
        self.needs = self.loss.needs
        self.temperature = self.loss.temperature
        sides = zip(('student', 'teacher'), (student_layout, teacher_layout), strict=True)
        self.given = [parse_layout(layout, f'{side}_layout of pair {name!r}') for side, layout in sides]
        if self.loss.compares == 'relations' and self.given != [None, None]:
            raise ConfigError(
                f'Expected no layout in pair {name!r} but got one. {self.label} takes tensors as they come.'
            )
        self.layouts: list[tuple[Layout, Layout]] = []

    @property
    def label(self) -> str:
        return type(self.loss).__name__

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> LevelAdapters | None:
        """Size the adapters; relations are compared as they come."""
        self.check_shapes(student_probe, teacher_probe)
        if self.loss.compares == 'relations':
            return None
        shapes = student_probe.shapes[self.student_taps[0]], teacher_probe.shapes[self.teacher_taps[0]]
        return build_adapters(*shapes, self.name, self.layouts)

    def distance(self, context: StepContext) -> Tensor:
        given = {key: getattr(context, key) for key in GIVEN if key in ('labels', *self.loss.takes)}
        return torch.stack([self.loss(ours, theirs, **given) for ours, theirs in self.compared(context)]).mean()

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        """Return the tensors by level, the student's adapted and resized; relations as they come."""
        pairs = []
        for level, (ours, theirs) in enumerate(self.levels(context)):
            if context.parameters is not None:
                ours = context.parameters[level](ours)  # type: ignore[index]
            if self.layouts:
                one, other = self.layouts[level]
                ours = one.channels_first(ours, context.image_size)
                theirs = other.channels_first(theirs, self._size_for(context))
            if self.loss.compares != 'relations':
                ours = match_size(ours, theirs)
            pairs.append((ours, theirs))
        return pairs

    @staticmethod
    def _size_for(context: StepContext) -> tuple[int, int] | None:
        """Return the size of the teacher's images, which may be another than the student's."""
        size = context.image_size
        return size if size is None or context.teacher is None else context.teacher.input.size_of(size)

    def check_shapes(self, student: ProbeResult, teacher: ProbeResult) -> None:
        """Compare what both taps put out.

        Raises:
            TapError: different numbers of tensors, tensors without channels, or other classes for a loss on logits.
        """
        (student_tap,), (teacher_tap,) = self.student_taps, self.teacher_taps
        ours, theirs = student.shapes[student_tap], teacher.shapes[teacher_tap]
        if len(ours) != len(theirs):
            raise TapError(
                f'Expected pair {self.name!r} to see as many student as teacher tensors but {student_tap!r} gives '
                f'{len(ours)} and {teacher_tap!r} gives {len(theirs)}. Tap layers with equally many outputs.'
            )
        for one, other in zip(ours, theirs, strict=True):
            if min(len(one), len(other)) < 2:
                raise TapError(
                    f'Expected pair {self.name!r} to see tensors with channels (N, C, ...) but got {one} and {other}. '
                    'Tap layers that put out features or logits.'
                )
        if self.loss.compares == 'relations':
            return
        logits = self.loss.compares == 'logits'
        self.layouts = [
            (layout_of(one, student.size, self.given[0], logits), layout_of(other, teacher.size, self.given[1], logits))
            for one, other in zip(ours, theirs, strict=True)
        ]
        for one, other, (layout, their_layout) in zip(ours, theirs, self.layouts, strict=True):
            classes = layout.channels(one), their_layout.channels(other)
            if logits and classes[0] != classes[1]:
                raise TapError(
                    f'Expected student and teacher of pair {self.name!r} to predict the same classes but '
                    f'{student_tap!r} has {classes[0]} channels and {teacher_tap!r} has {classes[1]}. '
                    'Use a teacher trained on the same classes, or distil features instead.'
                )


def build_loss(name: str, settings: Any) -> DistillationLoss:
    """Build the loss of a pair's config.

    Raises:
        ConfigError: an unknown type, arguments that the type does not take, or something that is no distillation loss.
    """
    try:
        loss = ROOT_MODELS.build(settings)
    except KeyError:
        kind = str(settings.get('type'))
        known = sorted(f'kdplugin.{key}' for key in MODELS.module_dict if key.endswith('Loss') and key != 'TapLoss')
        raise ConfigError(
            f'Expected a known loss type in pair {name!r} but got {kind!r}.{did_you_mean(kind, known)} '
            f'The losses of kdplugin are {known}.'
        ) from None
    except TypeError as error:
        raise ConfigError(
            f'Expected a loss that can be built in pair {name!r} but got {settings}: {error}. Correct its arguments.'
        ) from None
    if not isinstance(loss, DistillationLoss):
        raise ConfigError(
            f'Expected a distillation loss in pair {name!r} but got {type(loss).__name__}. '
            "Write the type with its prefix, such as 'kdplugin.KLDivergenceLoss'."
        )
    lacking = [key for key in loss.needs if key not in GIVEN]
    if lacking:
        raise ConfigError(
            f'Expected a loss in pair {name!r} that can do with {", ".join(GIVEN)} but {type(loss).__name__} needs '
            f'{", ".join(lacking)}, which pairs do not hand on. Choose another loss.'
        )
    return loss
