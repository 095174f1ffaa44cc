"""CrossKD: the student's features within its head, taken on by the teacher's head, must give what the teacher predicts.

N image, C channel, H W position on the grid of a level, M box of all levels and images.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.layouts import match_size
from kdplugin.distill.methods import cross_head
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.methods.maps import counted_cells
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import check_positive
from kdplugin.losses.box_overlap import giou_distance
from kdplugin.losses.localization import localization_divergence
from kdplugin.losses.quality_focal import quality_focal_divergence
from kdplugin.module_paths import find_module
from kdplugin.registry import MODELS


@MODELS.register_module()
class CrossKD(Method):
    """class_weight * D_class + box_weight * D_box between cross-head predictions and the teacher's own.

    Paper: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", arXiv 2306.11369. What the
    student has after ``convs`` convolutions of its classification and regression towers goes through the rest of the
    teacher's, whose weights stay as they are; the gradient flows through them to the student. D_class is
    ``quality_focal_divergence``, the mean over all positions. D_box weighs each by the teacher's highest score:
    ``localization_divergence`` where the head predicts distributions (GFL), else ``giou_distance`` of decoded boxes.
    Padding does not count. Centerness and the student's own predictions are left to the labels.

    The teacher's head runs in eval mode, so its BatchNorm normalises the student's features by the teacher's running
    statistics and keeps those. Towers of another width get one 1x1 convolution each, shared by the levels as the
    tower is. Both models may differ in backbone, norm layers, classes and length of towers, not in levels.

    Compared with the paper was its abstract alone: the student's features, the teacher's head, the predictions that are
    mimicked. Quality focal loss, GIoU and KL of distributions are the paper's as known to us; that D_class is a plain
    mean and D_box weighs by the highest score is our reading, so its authors' weights do not carry over. Their code,
    which is not free, was not used.

    Args:
        name: of the pair.
        tap: path of the heads, ``student_tap`` and ``teacher_tap`` where they differ.
        convs: how many convolutions of each tower the student runs by itself; with 0 its ``neck`` goes through the
            whole head. The towers of the usual heads have 4.
        teacher_convs: how many convolutions of the teacher's towers are left out, where the towers differ in length;
            as many as ``convs`` by default.
        neck: path of what the heads look at, on both sides.
        class_weight: of D_class.
        box_weight: of D_box.
        beta: of the quality focal loss, >= 1.
        temperature: T > 0 of the box distributions.
        taps: see ``Method``.

    Raises:
        ConfigError: the teacher's head is of another kind, or its towers are shorter than what is left out.
        TapError: the sides have different numbers of levels.

    Example:
        >>> CrossKD('c', convs=3).student_taps
        ('bbox_head.cls_convs.2', 'bbox_head.reg_convs.2')
    """

    def __init__(
        self,
        name: str,
        *,
        tap: str = 'bbox_head',
        convs: int = 3,
        teacher_convs: int | None = None,
        neck: str = 'neck',
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        beta: float = 1.0,
        temperature: float = 1.0,
        **taps: Any,
    ) -> None:
        super().__init__(name, tap=tap, **taps)
        if not isinstance(convs, int) or convs < 0:
            raise ConfigError(f'Expected convs to be a number >= 0 in pair {name!r} but got {convs!r}. Try 3.')
        if not 1 <= beta < float('inf'):
            raise ConfigError(f'Expected a finite beta >= 1 in pair {name!r} but got {beta}. Try 1 or 2.')
        (student,), (self.head,) = self.student_taps, self.teacher_taps
        self.student_taps = tuple(f'{student}.{tower}.{convs - 1}' for tower in cross_head.TOWERS) if convs else (neck,)
        self.teacher_taps = (neck,)
        self.entry = convs if teacher_convs is None else teacher_convs
        self.beta = beta
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.temperature: float = check_positive(temperature, f'temperature of pair {name!r}', 'Try 1 to 10.')

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> nn.ModuleList | None:
        head: Any = find_module(teacher.module, self.head, 'teacher')
        cross_head.check_head(head, self.entry, self.name)
        levels = len(teacher_probe.shapes[self.teacher_taps[0]])
        ours = [student_probe.shapes[tap] for tap in self.student_taps]
        if any(len(shapes) != levels for shapes in ours):
            raise TapError(
                f'Expected student and teacher of pair {self.name!r} to have as many levels but got '
                f'{len(ours[0])} and {levels}. Take necks of equally many outputs.'
            )
        width = head.feat_channels if self.entry else head.in_channels
        if all(shapes[0][1] == width for shapes in ours):
            return None
        return nn.ModuleList(nn.Conv2d(shapes[0][1], width, 1) for shapes in ours)

    def compared(self, context: StepContext) -> list[tuple[Tensor, Tensor]]:
        """Return the class logits by level: cross-head, and the teacher's own."""
        _, _, crossed, theirs = self._predictions(context)
        return list(zip(crossed[0], theirs[0], strict=True))

    def _predictions(self, context: StepContext) -> tuple[Any, list[Tensor], Any, Any]:
        """Return the teacher's head, the levels it looks at, what it puts out cross-head, and its own."""
        seen = context.teacher_tensors[self.teacher_taps[0]]
        head = cross_head.part_of_teacher(context.teacher, self.head, seen[0])
        with torch.no_grad():
            theirs = head(tuple(seen))
        return head, seen, cross_head.run_rest(head, self.entry, self._features(context, seen)), theirs

    def distance(self, context: StepContext) -> Tensor:
        head, seen, crossed, theirs = self._predictions(context)
        counted = cross_head.flat_cells(
            [counted_cells(context, level) for level in seen], seen, head.num_base_priors
        )  # fmt: skip
        scores, targets = (cross_head.flat_scores(head, side[0]) for side in (crossed, theirs))
        confidence = targets.sigmoid().amax(1)
        if counted is not None:
            confidence = torch.where(counted, confidence, 0)
        by_class = quality_focal_divergence(scores, targets, beta=self.beta, weight=counted)
        return self.class_weight * by_class + self.box_weight * self._boxes(head, crossed[1], theirs[1], confidence)

    def _features(self, context: StepContext, seen: list[Tensor]) -> list[list[Tensor]]:
        """Return what each of the teacher's towers goes on from, level by level."""
        towers = []
        for tower, tap in enumerate(self.student_taps):
            levels = context.student_tensors[tap]
            if context.parameters is not None:
                levels = [context.parameters[tower](level) for level in levels]  # type: ignore[index]
            towers.append([match_size(ours, theirs) for ours, theirs in zip(levels, seen, strict=True)])
        return towers if len(towers) == len(cross_head.TOWERS) else towers * 2

    def _boxes(self, head: Any, crossed: list[Tensor], theirs: list[Tensor], confidence: Tensor) -> Tensor:
        if cross_head.predicts_distributions(head):
            ours, targets = (cross_head.flat_distributions(head, side) for side in (crossed, theirs))
            return localization_divergence(ours, targets, temperature=self.temperature, weight=confidence)
        ours, targets = (cross_head.flat_boxes(head, side) for side in (crossed, theirs))
        return giou_distance(ours, targets, weight=confidence)
