"""Response distillation of boxes by how they overlap, as CrossKD and KD-DETR mimic the teacher's regression.

N image, M box.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from kdplugin.errors import TapError
from kdplugin.losses.base import DistillationLoss, comparable, weight_of, weighted_mean
from kdplugin.registry import MODELS

SMALLEST_AREA = 1e-9
"""Of a box that has anything to teach; images may be 1 x 1 (normalised coordinates)."""


def comparable_boxes(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors as ``comparable`` does; raises TapError unless they are boxes (..., 4)."""
    if student.shape[-1:] != (4,):
        raise TapError(f'Expected boxes (..., 4) but got {tuple(student.shape)}. Give four numbers for each box.')
    return comparable(student, teacher)


def giou_distance(student: Tensor, teacher: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Return the weighted mean over boxes of 1 - GIoU(student, teacher).

    Papers: Rezatofighi et al., "Generalized Intersection over Union", arXiv 1902.09630; as distillation in CrossKD,
    arXiv 2306.11369, which weighs each box by the teacher's confidence. Formula: 1 - IoU + (hull - union) / hull. It
    does not change when both boxes are moved or scaled together. Boxes of the teacher without area do not count.

    Args:
        student: corners x1 y1 x2 y2, (..., 4), in any unit.
        teacher: of the same shape; no gradient flows into them.
        weight: >= 0, (...); None counts all alike.

    Raises:
        TapError: the shapes differ, the last axis is not 4, or the weight is of another shape.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
        >>> round(float(giou_distance(boxes + 1, boxes)), 4)  # 1 - 1 / 7 + 2 / 9
        1.0794
    """
    student, teacher = comparable_boxes(student, teacher)
    sides = teacher[..., 2:] - teacher[..., :2]
    real = (sides > 0).all(-1) & (sides.prod(-1) > SMALLEST_AREA)
    safe = torch.where(real[..., None], teacher, teacher.new_tensor([0.0, 0.0, 1.0, 1.0]))
    distance = generalized_box_iou_loss(student, safe, reduction='none', eps=1e-3 * SMALLEST_AREA)
    return weighted_mean(distance, weight_of(distance, weight, real))


@MODELS.register_module()
class BoxOverlapLoss(DistillationLoss):
    """``giou_distance`` between decoded boxes of both sides."""

    compares = 'relations'
    takes = ('weight',)

    def forward(
        self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        return giou_distance(student, teacher, weight=weight)
