"""CWD: distillation of where each channel is active.

N image, C channel or class, H W position on the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdplugin.losses.base import (
    DistillationLoss,
    Ignored,
    check_positive,
    comparable,
    valid_positions,
    weighted_mean,
)
from kdplugin.losses.kl_divergence import softmax_divergence
from kdplugin.registry import MODELS


def channel_wise_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return T^2 * mean over images and channels of KL(teacher || student), each channel softened over positions.

    Paper: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", arXiv 2011.13256. Formula: phi(x) =
    softmax over the valid positions of x / T; T^2 / (N C) * sum over images and channels of KL(phi(t) || phi(s)).
    It does not change when a constant is added to a channel of an image.

    Args:
        student: features or logits (N, C, H, W).
        teacher: of the same shape; no gradient flows into it.
        temperature: T > 0.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` are left out of the softmax, images
            without any other position out of the mean.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ.

    Example:
        >>> import torch
        >>> features = torch.randn(2, 8, 4, 6)
        >>> float(channel_wise_divergence(features + 1, features)) < 1e-6
        True
    """
    student, teacher = comparable(student, teacher)
    valid = valid_positions(labels, ignore_index, (student.shape[0], *student.shape[2:]))
    if valid is not None:
        nowhere = torch.finfo(student.dtype).min / 2
        student, teacher = (torch.where(valid[:, None], side, nowhere) for side in (student, teacher))
    divergence = softmax_divergence(student.flatten(2), teacher.flatten(2), temperature=temperature, dim=2).mean(1)
    return weighted_mean(divergence, None if valid is None else valid.flatten(1).any(1))


@MODELS.register_module()
class CWDLoss(DistillationLoss):
    """``channel_wise_divergence`` with its settings.

    Args:
        temperature: T > 0, applied to both sides; the paper uses 4 for logits of segmentation.
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'features'
    temperature: float

    def __init__(self, temperature: float = 1.0, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.temperature = check_positive(temperature, 'temperature', 'Try 1 to 4.')
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return channel_wise_divergence(
            student, teacher, temperature=self.temperature, labels=labels, ignore_index=self.ignore_index
        )
