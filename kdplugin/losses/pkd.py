"""PKD: feature distillation by Pearson correlation.

N image, C channel, H W position on the grid of the feature map.
"""

from __future__ import annotations

from torch import Tensor

from kdplugin.losses.base import DistillationLoss, Ignored, comparable, correlation, valid_positions, weighted_mean
from kdplugin.registry import MODELS


def pearson_distance(
    student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, ignore_index: Ignored = 255
) -> Tensor:
    """Return half the mean squared difference of both maps, each channel standardised over images and positions.

    Paper: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient", arXiv 2207.02039. Formula, for each channel over its n valid values of the whole batch:
    mean((s' - t')^2) / 2 with s' = (s - mean) / std, std unbiased as in the authors' code, which is
    (n - 1) / n * (1 - r). The result is the mean over channels. It does not change when a channel is scaled by a
    positive factor or shifted, on either side. A channel that does not vary is 0 everywhere after standardising, so it
    adds (n - 1) / 2n where the other side varies and nothing where neither does.

    Args:
        student: features (N, C, H, W).
        teacher: features of the same shape; no gradient flows into them.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count, nor do they enter the
            means and deviations.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ, in any axis.

    Example:
        >>> import torch
        >>> features = torch.randn(2, 8, 4, 6)
        >>> float(pearson_distance(5 * features + 1, features)) < 1e-6
        True
    """
    student, teacher = comparable(student, teacher)
    valid = valid_positions(labels, ignore_index, (student.shape[0], *student.shape[2:]))
    over = (0, *range(2, student.dim()))
    r, ours, theirs = correlation(student, teacher, over, None if valid is None else valid[:, None])
    count = max(1, student[:, 0].numel()) if valid is None else valid.sum().clamp(min=1)
    return weighted_mean((ours.to(r) + theirs.to(r)) / 2 - r, None) * (count - 1) / count


@MODELS.register_module()
class PKDLoss(DistillationLoss):
    """``pearson_distance`` with its settings.

    Args:
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'features'

    def __init__(self, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return pearson_distance(student, teacher, labels=labels, ignore_index=self.ignore_index)
