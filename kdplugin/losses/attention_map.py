"""Distillation of what the tokens of a vision transformer attend to, head by head.

N image or window, A head, L token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.base import DistillationLoss, comparable, weighted_mean
from kdplugin.losses.kl_divergence import softmax_divergence
from kdplugin.registry import MODELS

SMALLEST = 1e-6
"""Probabilities below count as this one: half precision contains zeros, and the slope of the logarithm is 1 / p."""


def attention_map_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    heads: Sequence[int] | None = None,
    logits: bool = False,
    tokens: Tensor | None = None,
) -> Tensor:
    """Return the mean over images, heads and queries of KL(teacher || student) between rows of attention.

    Paper: Wang et al., "MiniLM: Deep Self-Attention Distillation", arXiv 2002.10957: 1 / (A L) * the sum over heads
    and queries of KL. A student that keeps some of the teacher's heads (a pruned one) names them: its head h looks
    at the teacher's head ``heads[h]``. Comparing heads by position instead teaches a head what another one did. Scores
    before the softmax are exact; probabilities are cut off at 1e-6.

    Args:
        student: attention (N, A, L, L), the last axis the tokens attended to.
        teacher: attention (N, A', L, L); no gradient flows into it.
        heads: the teacher's head for each of the student's; None where both have the same heads.
        logits: the tensors are scores before the softmax, not probabilities.
        tokens: bool (N, L), False for padded tokens: they are left out as queries and taken out of each row.

    Raises:
        TapError: other images or tokens, or other heads than ``heads`` says.

    Example:
        >>> import torch
        >>> teacher = torch.randn(2, 8, 5, 5).softmax(-1)
        >>> float(attention_map_divergence(teacher[:, [1, 6]], teacher, heads=[1, 6]))
        0.0
    """
    teacher = _chosen(student, teacher, heads)
    student, teacher = comparable(student, teacher)
    if tokens is not None and tokens.shape != student.shape[:1] + student.shape[2:3]:
        raise TapError(
            f'Expected a mask of tokens {(len(student), student.shape[2])} but got {tuple(tokens.shape)}. Give one '
            'bool for each token of each image.'
        )
    attended = None if tokens is None else tokens[:, None, None]
    if logits:
        if attended is not None:
            nowhere = torch.finfo(student.dtype).min / 2
            student, teacher = (torch.where(attended, side, nowhere) for side in (student, teacher))
        divergence = softmax_divergence(student, teacher, dim=3)
    else:
        if attended is not None:
            student, teacher = (_renormalized(side, attended) for side in (student, teacher))
        divergence = (teacher * (teacher.clamp(min=SMALLEST).log() - student.clamp(min=SMALLEST).log())).sum(3)
    return weighted_mean(divergence.mean(1), tokens)


def _chosen(student: Tensor, teacher: Tensor, heads: Sequence[int] | None) -> Tensor:
    """Return the teacher's heads that the student's look at."""
    maps = student.dim() == teacher.dim() == 4
    chosen = list(range(teacher.shape[1]) if heads is None and maps else heads or ())
    if not maps or len(chosen) != student.shape[1] or max(chosen) >= teacher.shape[1]:
        raise TapError(
            f'Expected attention (N, A, L, L) whose heads look at heads {chosen} of the teacher but got '
            f'{tuple(student.shape)} and {tuple(teacher.shape)}. Set heads to the teacher head of each student head.'
        )
    return teacher[:, chosen]


def _renormalized(probabilities: Tensor, attended: Tensor) -> Tensor:
    kept = torch.where(attended, probabilities, 0)
    return kept / kept.sum(3, keepdim=True).clamp(min=SMALLEST)


@MODELS.register_module()
class AttentionMapLoss(DistillationLoss):
    """``attention_map_divergence`` with its settings.

    Args:
        heads: the teacher's head for each head of the student; None where both have the same heads.
        logits: the taps put out scores before the softmax.
    """

    compares = 'relations'
    takes = ('tokens',)

    def __init__(self, heads: Sequence[int] | None = None, logits: bool = False) -> None:
        super().__init__()
        if heads is not None and (not heads or min(heads) < 0):
            raise ConfigError(f'Expected head numbers from 0 but got {list(heads)}. Give one for each student head.')
        self.heads = heads
        self.logits = logits

    def forward(
        self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, tokens: Tensor | None = None
    ) -> Tensor:
        return attention_map_divergence(student, teacher, heads=self.heads, logits=self.logits, tokens=tokens)
