"""What every way of distilling has in common: what it is built from, what it sees of a step, what it gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, TapError


@dataclass(frozen=True)
class StepContext:
    """What a method sees of one training step. Floating tensors are float32 or better, and autocast is off.

    Args:
        student_tensors: by tap, what the student's modules put out, in call order; they carry the graph.
        teacher_tensors: by tap, what the modules of the method's own teacher put out, without a graph.
        student: the student; a method may run parts of it.
        teacher: the method's own teacher; a method may run parts of ``teacher.module``, with gradient to the student.
        parameters: what the method's ``prepare`` returned.
        image_size: height and width of the padded batch in pixels.
        data_samples: of the batch, as the model's ``forward`` got them.
        labels: mmseg's class indices (N, H, W), None where the samples have none.
        boxes: of each image, corners x1 y1 x2 y2 (M, 4) in pixels of the padded batch; None where there are none.
    """

    student_tensors: Mapping[str, list[Tensor]]
    teacher_tensors: Mapping[str, list[Tensor]]
    student: nn.Module
    teacher: Teacher
    parameters: nn.Module | None = None
    image_size: tuple[int, int] | None = None
    data_samples: Sequence[Any] | None = None
    labels: Tensor | None = None
    boxes: list[Tensor] | None = None


class Method:
    """Base of the registered classes that a pair's ``type`` names.

    ``pairs=dict(x=dict(type='kdplugin.MGD', tap='neck', weight=2e-5, **settings))`` builds ``MGD('x', tap='neck',
    **settings)``: the keys of the engine (``kdplugin.distill.pairs.ENGINE_KEYS``: weight, teacher, ...) do not arrive
    here. A setting is a named argument of ``__init__``; ``**taps`` passes the taps on to this class.

    ``needs`` names the fields of ``StepContext`` without which the method cannot work; the engine refuses ``'boxes'``
    for a student that is no detector before anything runs. ``temperature`` is shown in the reports.

    Args:
        name: of the pair, for messages.
        tap: module path on both sides.
        student_tap: module path in the student, where the sides differ.
        teacher_tap: module path in the teacher, where the sides differ.

    Raises:
        ConfigError: a side has no tap.
    """

    needs: tuple[str, ...] = ()
    temperature: float | None = None

    def __init__(
        self, name: str, *, tap: str | None = None, student_tap: str | None = None, teacher_tap: str | None = None
    ) -> None:
        student, teacher = student_tap or tap, teacher_tap or tap
        if student is None or teacher is None:
            raise ConfigError(
                f'Expected pair {name!r} to have tap (or student_tap and teacher_tap) but got tap={tap!r}, '
                f"student_tap={student_tap!r}, teacher_tap={teacher_tap!r}. Write tap='neck'."
            )
        self.name = name
        self.student_taps: tuple[str, ...] = (student,)
        self.teacher_taps: tuple[str, ...] = (teacher,)

    @property
    def label(self) -> str:
        """What reports call the method."""
        return type(self).__name__

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> nn.Module | None:
        """Check what the taps put out and return what the method trains beside the student, None if nothing.

        It becomes ``_kd.<name>`` of the student: in the optimizer and DDP, under a key of its own in checkpoints, left
        behind on export. All its parameters must take part in every ``distance``. Random generators are restored after.

        Raises:
            TapError, ConfigError: the tensors cannot be compared, or a model does not suit.
        """
        return None

    def distance(self, context: StepContext) -> Tensor:
        """Return one scalar with a gradient to the student and the method's parameters only, before any weight."""
        raise NotImplementedError

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        """Return what ``distance`` lays on each other, student and teacher by level, for a person to look at.

        Channels come second. By default it is what the first tap of both sides puts out.
        """
        return self.levels(context)

    def levels(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        """Return the tensors of the first tap of both sides, level by level.

        Raises:
            TapError: one side has more than the other.
        """
        student = context.student_tensors[self.student_taps[0]]
        teacher = context.teacher_tensors[self.teacher_taps[0]]
        if len(student) != len(teacher):
            raise TapError(
                f'Expected pair {self.name!r} to see as many student as teacher tensors but got {len(student)} '
                f'and {len(teacher)}. Tap layers that run equally often.'
            )
        return list(zip(student, teacher, strict=True))
