"""FitNet: plain distances between features.

N image, C channel, H W position on the grid of the feature map.
"""

from __future__ import annotations

from torch import Tensor

from kdplugin.losses.base import DistillationLoss, Ignored, comparable, mean_over_valid
from kdplugin.registry import MODELS


def l1_distance(
    student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, ignore_index: Ignored = 255
) -> Tensor:
    """Return the mean of |student - teacher| over channels and valid positions.

    Args:
        student: features (N, C, H, W), or (N, C).
        teacher: features of the same shape; no gradient flows into them.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ.
    """
    student, teacher = comparable(student, teacher)
    return mean_over_valid((student - teacher).abs().mean(1), labels, ignore_index)


def l2_distance(
    student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, ignore_index: Ignored = 255
) -> Tensor:
    """Return the mean of (student - teacher)^2 over channels and valid positions.

    Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv 1412.6550, which sums halves of the squares; a
    mean does not grow with the map and does not leave the range of numbers.

    Args:
        student: features (N, C, H, W), or (N, C).
        teacher: features of the same shape; no gradient flows into them.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ.
    """
    student, teacher = comparable(student, teacher)
    return mean_over_valid((student - teacher).square().mean(1), labels, ignore_index)


@MODELS.register_module()
class L1Loss(DistillationLoss):
    """``l1_distance`` with its settings.

    Args:
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'features'

    def __init__(self, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return l1_distance(student, teacher, labels=labels, ignore_index=self.ignore_index)


@MODELS.register_module()
class L2Loss(DistillationLoss):
    """``l2_distance`` with its settings.

    Args:
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'features'

    def __init__(self, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return l2_distance(student, teacher, labels=labels, ignore_index=self.ignore_index)
