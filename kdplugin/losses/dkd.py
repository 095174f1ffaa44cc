"""DKD: response distillation in two parts, the class of the label against the rest, and the rest among themselves.

N image, C class, H W position on the grid of the logits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses.base import (
    DistillationLoss,
    Ignored,
    check_positive,
    comparable,
    on_grid,
    valid_positions,
    weighted_mean,
)
from kdplugin.losses.kl_divergence import softmax_divergence
from kdplugin.registry import MODELS


def decoupled_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    labels: Tensor | None,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return T^2 * mean over labelled positions of alpha * TCKD + beta * NCKD.

    Paper: Zhao et al., "Decoupled Knowledge Distillation", arXiv 2203.08679. With p = softmax(x / T) and y the label,
    TCKD is the KL divergence between the two-way distributions (p_y, 1 - p_y), NCKD the one between the softmaxes
    over all classes but y. alpha = 1 and beta = 1 - p_y of the teacher would give the ordinary KL divergence.

    Args:
        student: logits (N, C, H, W) or (N, C).
        teacher: logits of the same shape; no gradient flows into them.
        labels: class indices (N, H', W') or (N,). Positions count that are labelled 0 to C - 1 and not
            ``ignore_index``: a background label C, as in mmdet, names no class that could be decoupled.
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T > 0.
        ignore_index: a label, or several, to leave out; None leaves out only what names no class.

    Raises:
        TapError: the shapes differ.
        ConfigError: no labels, or none of these positions.
    """
    student, teacher = comparable(student, teacher)
    shape = (student.shape[0], *student.shape[2:])
    if labels is None or labels.dim() != len(shape):
        got = 'none' if labels is None else f'labels of shape {tuple(labels.shape)}'
        raise ConfigError(
            f'Expected a class label at every position of logits {tuple(student.shape)} but got {got}. Use DKDLoss on '
            'logits whose ground truth is such a map, and KLDivergenceLoss on others.'
        )
    valid, target = valid_positions(labels, ignore_index, shape), on_grid(labels, shape).long()
    known = (target >= 0) & (target < student.shape[1])
    known = known if valid is None else known & valid
    index = torch.where(known, target, 0)[:, None]
    is_target = torch.zeros_like(student, dtype=torch.bool).scatter_(1, index, True)
    nowhere = torch.finfo(student.dtype).min / 2
    rests = [torch.where(is_target, nowhere, side) for side in (student, teacher)]
    ours, theirs = (
        _two_way(side / temperature, rest / temperature, index)
        for side, rest in zip((student, teacher), rests, strict=True)
    )
    tckd = temperature**2 * F.kl_div(ours, theirs, reduction='none', log_target=True).sum(1)
    return weighted_mean(alpha * tckd + beta * softmax_divergence(*rests, temperature=temperature), known)


def _two_way(logits: Tensor, rest: Tensor, index: Tensor) -> Tensor:
    """Return ln p_y and ln (1 - p_y) as (N, 2, ...) from logits, those of the other classes, and y (N, 1, ...)."""
    total = logits.logsumexp(1)
    return torch.stack([logits.gather(1, index)[:, 0] - total, rest.logsumexp(1) - total], 1)


@MODELS.register_module()
class DKDLoss(DistillationLoss):
    """``decoupled_divergence`` with its settings.

    Args:
        alpha: weight of the label's class against the rest.
        beta: weight of the rest among themselves; the authors' configs have 2 to 8 on CIFAR-100 (T = 4) and 0.5 to 2 on
            ImageNet (T = 1).
        temperature: T > 0, applied to both sides.
        ignore_index: label of the positions that do not count; several may be given.
    """

    compares = 'logits'
    needs = ('labels',)
    temperature: float

    def __init__(
        self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, ignore_index: Ignored = 255
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.beta = beta
        self.temperature = check_positive(temperature, 'temperature', 'Try 1 to 4.')
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        settings = dict(alpha=self.alpha, beta=self.beta, temperature=self.temperature)
        return decoupled_divergence(student, teacher, labels=labels, ignore_index=self.ignore_index, **settings)
