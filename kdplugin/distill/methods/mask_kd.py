"""Mask KD: both mask heads look at the same objects, each in its own features.

N image, C channel, H W position on the grid of a level, M object of all images, K class of the mask head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.layouts import match_size
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.methods.cross_head import part_of_teacher
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import check_positive
from kdplugin.losses.instance_mask import mask_divergence
from kdplugin.module_paths import find_module
from kdplugin.registry import MODELS


@MODELS.register_module()
class MaskKD(Method):
    """``mask_divergence`` between the masks of Mask R-CNN's student and teacher in the boxes of the ground truth.

    Papers: He et al., "Mask R-CNN", arXiv 1703.06870; Hinton et al., arXiv 1503.02531. Each mask head runs on the
    features of its own neck in the boxes of the ground truth, and the mask of the object's class is compared pixel by
    pixel; the gradient flows to the student's mask head, neck and backbone. An image without objects adds nothing; a
    batch without any gives 0. Where mask sizes differ the student's is resized.

    The student's mask head runs once more than in the plain recipe: BatchNorm in it, which mmdet's recipes do not
    have, would see the boxes of the ground truth too. Of a cascade the last mask head counts.

    Args:
        name: of the pair.
        tap: path of the necks, ``student_tap`` and ``teacher_tap`` where they differ.
        head: path of the RoI heads, on both sides.
        temperature: T > 0, applied to both sides.
        taps: see ``Method``.

    Raises:
        ConfigError: a model has no mask head that can be run on boxes.
        TapError: the mask heads score different classes.

    Example:
        >>> MaskKD('m').student_taps
        ('neck',)
    """

    needs = ('boxes',)

    def __init__(
        self, name: str, *, tap: str = 'neck', head: str = 'roi_head', temperature: float = 1.0, **taps: Any
    ) -> None:
        super().__init__(name, tap=tap, **taps)
        self.head = head
        self.temperature: float = check_positive(temperature, f'temperature of pair {name!r}', 'Try 1 to 4.')

    def prepare(
        self, student_probe: ProbeResult, teacher_probe: ProbeResult, student: nn.Module, teacher: Teacher
    ) -> None:
        ours, theirs = (
            _classes_of(find_module(model, self.head, owner), owner, self.name)
            for model, owner in ((student, 'student'), (teacher.module, 'teacher'))
        )
        if ours != theirs:
            raise TapError(
                f'Expected the mask heads of pair {self.name!r} to score the same classes but got {ours} and {theirs}. '
                'Use a teacher trained on the same classes, class-agnostic where the student is.'
            )

    def distance(self, context: StepContext) -> Tensor:
        from mmdet.structures.bbox import bbox2roi

        ours, theirs = context.student_tensors[self.student_taps[0]], context.teacher_tensors[self.teacher_taps[0]]
        if context.boxes is None or not any(len(boxes) for boxes in context.boxes):
            return sum(level.flatten()[:0].sum() for level in ours)  # type: ignore[return-value]
        rois = bbox2roi([boxes.to(ours[0]) for boxes in context.boxes])
        samples: Any = context.data_samples
        classes = torch.cat([sample.gt_instances.labels for sample in samples]).to(rois.device)
        student = mask_logits(find_module(context.student, self.head, 'student'), ours, rois)
        with torch.no_grad():
            head = part_of_teacher(context.teacher, self.head, rois)
            teacher = mask_logits(head, theirs, self._as_teacher_sees(context, rois))
        return mask_divergence(
            match_size(student, teacher), teacher, classes=classes, temperature=self.temperature
        )  # fmt: skip

    @staticmethod
    def _as_teacher_sees(context: StepContext, rois: Tensor) -> Tensor:
        """Return rois (M, 5) in pixels of the teacher's batch, which may be of another size."""
        if context.image_size is None:
            return rois
        pairs = zip(context.teacher.input.size_of(context.image_size), context.image_size, strict=True)
        height, width = (theirs / ours for theirs, ours in pairs)
        return rois * rois.new_tensor([1.0, width, height, width, height])


def mask_logits(head: Any, features: list[Tensor], rois: Tensor) -> Tensor:
    """Return mask logits (M, K, H, W) of an RoI head, the last one's of a cascade.

    Args:
        head: mmdet's ``StandardRoIHead`` or ``CascadeRoIHead``.
        features: levels (N, C, H, W) of the neck.
        rois: image number and corners x1 y1 x2 y2 in pixels of the padded batch (M, 5).
    """
    stage = (head.num_stages - 1,) if isinstance(head.mask_head, nn.ModuleList) else ()
    return head._mask_forward(*stage, tuple(features), rois)['mask_preds']


def _classes_of(head: Any, owner: str, pair: str) -> int:
    from mmdet.models.roi_heads import CascadeRoIHead, HybridTaskCascadeRoIHead, StandardRoIHead

    known = isinstance(head, StandardRoIHead | CascadeRoIHead) and not isinstance(head, HybridTaskCascadeRoIHead)
    if not known or not head.with_mask:
        raise ConfigError(
            f'Expected an RoI head with masks in the {owner} of pair {pair!r} but got {type(head).__name__}. Use '
            'Mask R-CNN or Cascade Mask R-CNN.'
        )
    last: Any = head.mask_head[-1] if isinstance(head.mask_head, nn.ModuleList) else head.mask_head
    return 1 if last.class_agnostic else int(last.num_classes)
