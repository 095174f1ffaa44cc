"""Response distillation of dense detectors' sigmoid scores, as CrossKD mimics the teacher's classification.

N image, M box, C class, H W position on the grid of a level.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses.base import (
    DistillationLoss,
    Ignored,
    comparable,
    valid_positions,
    weight_of,
    weighted_mean,
)
from kdplugin.registry import MODELS


def quality_focal_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return the weighted mean over positions of the quality focal loss towards the teacher's scores.

    Papers: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", arXiv 2306.11369, takes the
    quality focal loss of Li et al., "Generalized Focal Loss", arXiv 2006.04388, with the teacher's scores as soft
    labels. Formula: sum over classes of |p - y|^beta * BCE(p, y), p and y the sigmoids of student and teacher. The
    factor is part of the formula, so gradients flow through it too, and value and slope are 0 where p = y.

    Args:
        student: logits (N, C, H, W) or (M, C); in CrossKD those of the teacher's head on the student's features.
        teacher: logits of the same shape; no gradient flows into them.
        beta: >= 1, how much less the scores count that agree already.
        weight: >= 0, (N, H, W) or (M,); None counts all alike.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ, or the weight is of another shape.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 80, 5, 7)
        >>> float(quality_focal_divergence(logits, logits))
        0.0
    """
    student, teacher = comparable(student, teacher)
    score = teacher.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(student, score, reduction='none')
    focal = ((student.sigmoid() - score).abs().pow(beta) * entropy).sum(1)
    valid = valid_positions(labels, ignore_index, focal.shape)
    return weighted_mean(focal, weight_of(focal, weight, valid))


@MODELS.register_module()
class SoftQualityFocalLoss(DistillationLoss):
    """``quality_focal_divergence`` with its settings.

    Args:
        beta: >= 1, how much less the scores count that agree already.
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'logits'
    takes = ('labels', 'weight')

    def __init__(self, beta: float = 1.0, ignore_index: Ignored = 255) -> None:
        super().__init__()
        if not 1 <= beta < float('inf'):
            raise ConfigError(f'Expected a finite beta >= 1 but got {beta}. Try 1 or 2; below 1 slopes are infinite.')
        self.beta = beta
        self.ignore_index = ignore_index

    def forward(
        self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        keywords: dict[str, Any] = dict(labels=labels, weight=weight, ignore_index=self.ignore_index)
        return quality_focal_divergence(student, teacher, beta=self.beta, **keywords)
