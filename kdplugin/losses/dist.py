"""DIST: distillation of how classes and positions relate, not of their exact probabilities.

N image, C class, H W position on the grid of the logits.
"""

from __future__ import annotations

from torch import Tensor

from kdplugin.losses.base import (
    DistillationLoss,
    Ignored,
    check_positive,
    comparable,
    correlation,
    valid_positions,
    weighted_mean,
)
from kdplugin.registry import MODELS


def dist_relations(
    student: Tensor,
    teacher: Tensor,
    *,
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    temperature: float = 1.0,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return T^2 * (inter_weight * inter + intra_weight * intra), means of 1 - Pearson's r between softened classes.

    Paper: Huang et al., "Knowledge Distillation from A Stronger Teacher", arXiv 2205.10536. Formula: p = softmax(x /
    T); inter is the mean over positions of all images of 1 - r over classes, intra the mean over classes of 1 - r
    over positions of all images. A probability vector may be scaled and shifted without changing either. Where the
    teacher's values do not vary there is no relation to learn: such positions and classes do not count.

    Args:
        student: logits (N, C, H, W) or (N, C).
        teacher: logits of the same shape; no gradient flows into them.
        inter_weight: of the relations between classes.
        intra_weight: of the relations within a class.
        temperature: T > 0.
        labels: class indices (N, H', W'); positions labelled ``ignore_index`` do not count.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 8, 4, 6)
        >>> float(dist_relations(logits + 5, logits)) < 1e-5
        True
    """
    student, teacher = comparable(student, teacher)
    ours, theirs = ((side / temperature).softmax(1) for side in (student, teacher))
    valid = valid_positions(labels, ignore_index, (student.shape[0], *student.shape[2:]))
    if valid is not None:
        valid = valid[:, None]
    inter = _one_minus_r(ours, theirs, (1,), valid)
    intra = _one_minus_r(ours, theirs, (0, *range(2, ours.dim())), valid)
    return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _one_minus_r(student: Tensor, teacher: Tensor, dim: tuple[int, ...], valid: Tensor | None) -> Tensor:
    r, _, varies = correlation(student, teacher, dim, valid)
    return weighted_mean(1 - r, varies)


@MODELS.register_module()
class DISTLoss(DistillationLoss):
    """``dist_relations`` with its settings.

    Args:
        inter_weight: of the relations between the classes of a position.
        intra_weight: of the relations between the positions of a class.
        temperature: T > 0, applied to both sides.
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'logits'
    temperature: float

    def __init__(
        self,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
        temperature: float = 1.0,
        ignore_index: Ignored = 255,
    ) -> None:
        super().__init__()
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight
        self.temperature = check_positive(temperature, 'temperature', 'Try 1 to 4.')
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return dist_relations(
            student,
            teacher,
            inter_weight=self.inter_weight,
            intra_weight=self.intra_weight,
            temperature=self.temperature,
            labels=labels,
            ignore_index=self.ignore_index,
        )
