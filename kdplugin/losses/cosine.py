"""Feature distillation by direction.

N image, C channel, H W position on the grid of the feature map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdplugin.losses.base import DistillationLoss, Ignored, comparable, mean_over_valid
from kdplugin.registry import MODELS

SHORTEST = 1e-6
"""Vectors below this length have no direction."""


def cosine_distance(
    student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, ignore_index: Ignored = 255
) -> Tensor:
    """Return the mean over valid positions of 1 - cos(student, teacher), the angle taken over channels.

    Formula: 1 - <s, t> / (|s| |t|) at each position; 0 for equal directions, 2 for opposite ones, whatever the
    norms. A position where either vector is zero (shorter than 1e-6) counts 1 and gets no gradient: its direction is
    undefined, and torch's ``cosine_similarity`` would give such a dead position a gradient of 1e8.

    Args:
        student: features (N, C, H, W).
        teacher: features of the same shape; no gradient flows into them.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks pixels to leave out; None counts every position,
            several labels, such as (0, 255), leave out the background too.

    Raises:
        TapError: the shapes differ.
    """
    student, teacher = comparable(student, teacher)
    squares = [side.square().sum(1) for side in (student, teacher)]
    short = (squares[0] <= SHORTEST**2) | (squares[1] <= SHORTEST**2)
    ours, theirs = (torch.where(short, 1, one).sqrt() for one in squares)
    cosine = torch.where(short, 0, (student * teacher).sum(1) / ours / theirs)
    return mean_over_valid(1 - cosine, labels, ignore_index)


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
