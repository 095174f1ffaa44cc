"""LD: distillation of where detectors of the GFL kind see the sides of a box, as distributions over distances.

N image, M box, H W position on the grid of a level, B bin of a side's distribution.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses.base import (
    DistillationLoss,
    Ignored,
    check_positive,
    comparable,
    valid_positions,
    weight_of,
    weighted_mean,
)
from kdplugin.losses.kl_divergence import softmax_divergence
from kdplugin.registry import MODELS


def localization_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 10.0,
    weight: Tensor | None = None,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return T^2 * weighted mean over boxes and their four sides of KL(teacher || student) over the bins of a side.

    Paper: Zheng et al., "Localization Distillation for Dense Object Detection", arXiv 2102.12252. The KL divergence
    is summed over bins, as the formula says; mmdet's ``KnowledgeDistillationKLDivLoss`` takes their mean instead, so
    its weights are B = reg_max + 1 times ours. The paper distils positives and a valuable region around them: give
    ``weight``, since at background positions the distributions mean nothing.

    Args:
        student: logits (N, 4 B, H, W) or (M, 4 B), sides in four runs of B.
        teacher: logits of the same shape; no gradient flows into them.
        temperature: T > 0.
        weight: >= 0, (N, H, W) or (M,); None counts all alike.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ, the channels are no four runs, or the weight is of another shape.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 4 * 17, 5, 7)
        >>> float(localization_divergence(logits + 1, logits)) < 1e-5
        True
    """
    student, teacher = comparable(student, teacher)
    if student.dim() < 2 or student.shape[1] % 4:
        raise TapError(
            f'Expected distributions of 4 sides, channels that 4 divides, but got {tuple(student.shape)}. Tap what '
            "puts out the box distributions, such as 'bbox_head.scales.0' of GFL for the first level."
        )
    ours, theirs = (side.unflatten(1, (4, -1)) for side in (student, teacher))
    divergence = softmax_divergence(ours, theirs, temperature=temperature, dim=2).mean(1)
    valid = valid_positions(labels, ignore_index, divergence.shape)
    return weighted_mean(divergence, weight_of(divergence, weight, valid))


@MODELS.register_module()
class LocalizationDistillationLoss(DistillationLoss):
    """``localization_divergence`` with its settings.

    Args:
        temperature: T > 0, applied to both sides; the paper uses 10.
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'logits'
    takes = ('labels', 'weight')
    temperature: float

    def __init__(self, temperature: float = 10.0, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.temperature = check_positive(temperature, 'temperature', 'Try 10.')
        self.ignore_index = ignore_index

    def forward(
        self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        keywords: dict[str, Any] = dict(labels=labels, weight=weight, ignore_index=self.ignore_index)
        return localization_divergence(student, teacher, temperature=self.temperature, **keywords)
