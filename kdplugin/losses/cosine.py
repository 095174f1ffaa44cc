"""Feature distillation by direction.

N image, C channel, H W position on the grid of the feature map.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdplugin.losses.base import DistillationLoss, Ignored, check_same_shape, mean_over_valid
from kdplugin.registry import MODELS


def cosine_distance(
    student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, ignore_index: Ignored = 255
) -> Tensor:
    """Return the mean over valid positions of 1 - cos(student, teacher), the angle taken over channels.

    Formula: 1 - <s, t> / (|s| |t|) at each position; 0 for equal directions, 2 for opposite ones, whatever the
    norms. A position where either vector is zero counts 1.

    Args:
        student: features (N, C, H, W).
        teacher: features of the same shape; no gradient flows into them.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks pixels to leave out; None counts every position,
            several labels, such as (0, 255), leave out the background too.

    Raises:
        TapError: the shapes differ.
    """
    check_same_shape(student, teacher)
    distance = 1 - F.cosine_similarity(student.float(), teacher.detach().float(), dim=1)
    return mean_over_valid(distance, labels, ignore_index)


@MODELS.register_module()
class CosineLoss(DistillationLoss):
    """``cosine_distance`` with its settings.

    Args:
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'features'

    def __init__(self, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return cosine_distance(student, teacher, labels=labels, ignore_index=self.ignore_index)
