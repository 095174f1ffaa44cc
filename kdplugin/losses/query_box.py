"""Response distillation of DETR-style models: the boxes of queries that have been matched before.

N image, Q query.
"""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import box_convert

from kdplugin.losses.base import DistillationLoss, weight_of, weighted_mean
from kdplugin.losses.box_overlap import comparable_boxes, giou_distance
from kdplugin.registry import MODELS


def query_box_distance(
    student: Tensor,
    teacher: Tensor,
    *,
    l1_weight: float = 5.0,
    giou_weight: float = 2.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the weighted mean over queries of l1_weight * |b_s - b_t|_1 + giou_weight * (1 - GIoU).

    Paper: Carion et al., "End-to-End Object Detection with Transformers", arXiv 2005.12872, with the teacher's boxes
    as targets as in KD-DETR, arXiv 2211.08071. The L1 distance is summed over the four numbers of a box.

    Args:
        student: centre x y, width and height in parts of the image, (..., Q, 4).
        teacher: of the same shape; no gradient flows into them.
        l1_weight: of the L1 distance.
        giou_weight: of the overlap.
        weight: >= 0, (..., Q), 0 for queries without a partner; None counts all alike.

    Raises:
        TapError: the shapes differ, the last axis is not 4, or the weight is of another shape.
    """
    student, teacher = comparable_boxes(student, teacher)
    overlap = giou_distance(*(box_convert(side, 'cxcywh', 'xyxy') for side in (student, teacher)), weight=weight)
    distance = (student - teacher).abs().sum(-1)
    return l1_weight * weighted_mean(distance, weight_of(distance, weight)) + giou_weight * overlap


@MODELS.register_module()
class QueryBoxLoss(DistillationLoss):
    """``query_box_distance`` with its settings.

    Args:
        l1_weight: of the L1 distance.
        giou_weight: of the overlap.
    """

    compares = 'relations'
    takes = ('weight',)

    def __init__(self, l1_weight: float = 5.0, giou_weight: float = 2.0) -> None:
        super().__init__()
        self.l1_weight = l1_weight
        self.giou_weight = giou_weight

    def forward(
        self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        weights = dict(l1_weight=self.l1_weight, giou_weight=self.giou_weight)
        return query_box_distance(student, teacher, weight=weight, **weights)
