"""Response distillation of instance masks: the teacher's mask of the same box, pixel by pixel.

M positive box, K class of the mask head, H W position inside the box.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses.base import DistillationLoss, check_positive, comparable, weight_of, weighted_mean
from kdplugin.losses.kl_divergence import sigmoid_divergence
from kdplugin.registry import MODELS


def mask_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    classes: Tensor | None = None,
    temperature: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return T^2 * weighted mean over boxes and their pixels of KL(teacher || student) between foreground and not.

    Paper: Hinton et al., arXiv 1503.02531, for the two classes of a pixel, p = sigmoid(x / T); Mask R-CNN, arXiv
    1703.06870, scores each class's mask by itself and uses the one of the box's class. Both mask heads must have seen
    the same boxes. Without boxes the value is 0 with a gradient path.

    Args:
        student: mask logits (M, K, H, W), or (M, H, W) of class-agnostic heads.
        teacher: logits of the same shape; no gradient flows into them.
        classes: class of each box (M,), needed where K > 1; boxes of none of the K classes do not count.
        temperature: T > 0.
        weight: >= 0, (M,), such as the teacher's confidence; None counts all alike.

    Raises:
        TapError: the shapes differ, or the weight is of another shape.
        ConfigError: no class for each box although K > 1.
    """
    student, teacher = comparable(student, teacher)
    divergence = sigmoid_divergence(student, teacher, temperature=temperature)
    if student.dim() == 3:
        divergence = divergence[:, None]
    per_class = divergence.flatten(2).mean(2)
    known = None
    if per_class.shape[1] > 1:
        if classes is None or classes.shape != per_class.shape[:1]:
            got = 'none' if classes is None else f'shape {tuple(classes.shape)}'
            raise ConfigError(
                f'Expected classes ({len(per_class)},) for mask logits {tuple(student.shape)} but got {got}. Give the '
                'assigned class of each positive box.'
            )
        known = (classes >= 0) & (classes < per_class.shape[1])
        per_class = per_class.gather(1, torch.where(known, classes, 0).long()[:, None])
    values = per_class[:, 0]
    return weighted_mean(values, weight_of(values, weight, known))


@MODELS.register_module()
class InstanceMaskLoss(DistillationLoss):
    """``mask_divergence`` with its settings.

    Args:
        temperature: T > 0, applied to both sides.
    """

    compares = 'logits'
    takes = ('classes', 'weight')
    temperature: float

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_positive(temperature, 'temperature', 'Try 1 to 4.')

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        labels: Tensor | None = None,
        classes: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        keywords: dict[str, Any] = dict(classes=classes, weight=weight)
        return mask_divergence(student, teacher, temperature=self.temperature, **keywords)
