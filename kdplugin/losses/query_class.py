"""Response distillation of DETR-style models: the classes of queries that have been matched before.

N image, Q query, C class.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses.base import DistillationLoss, check_positive, comparable, precise, weight_of, weighted_mean
from kdplugin.losses.kl_divergence import sigmoid_divergence, softmax_divergence
from kdplugin.registry import MODELS

Scores = Literal['sigmoid', 'softmax']


def foreground_weight(teacher: Tensor, *, scores: Scores = 'sigmoid') -> Tensor:
    """Return how sure the teacher is of an object at each query: its highest class score (..., Q), without a graph.

    Args:
        teacher: logits (..., Q, C); with 'softmax' the last class is "no object" and does not count.
        scores: how logits become scores: 'sigmoid' (Deformable DETR, DINO) or 'softmax' (DETR).
    """
    logits = precise(teacher.detach())
    return logits.sigmoid().amax(-1) if scores == 'sigmoid' else logits.softmax(-1)[..., :-1].amax(-1)


def query_class_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    scores: Scores = 'sigmoid',
    temperature: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Return T^2 * weighted mean over queries of KL(teacher || student) between their class scores.

    Paper: Wang et al., "KD-DETR: Knowledge Distillation for Detection Transformer with Consistent Distillation Points
    Sampling", arXiv 2211.08071, which weighs queries by ``foreground_weight``. With sigmoid scores each class is a
    distribution of its own and their divergences are summed.

    Args:
        student: logits (..., Q, C), query q the partner of the teacher's query q.
        teacher: logits of the same shape; no gradient flows into them.
        scores: 'sigmoid' or 'softmax'.
        temperature: T > 0.
        weight: >= 0, (..., Q), 0 for queries without a partner; None counts all alike.

    Raises:
        TapError: the shapes differ, or the weight is of another shape.
    """
    student, teacher = comparable(student, teacher)
    if scores == 'sigmoid':
        divergence = sigmoid_divergence(student, teacher, temperature=temperature).sum(-1)
    else:
        divergence = softmax_divergence(student, teacher, temperature=temperature, dim=-1)
    return weighted_mean(divergence, weight_of(divergence, weight))


@MODELS.register_module()
class QueryClassLoss(DistillationLoss):
    """``query_class_divergence`` with its settings.

    Args:
        scores: how logits become scores: 'sigmoid' (Deformable DETR, DINO) or 'softmax' (DETR).
        temperature: T > 0, applied to both sides.
        foreground: weigh queries by the teacher's highest score where no weight is given.
    """

    compares = 'relations'
    takes = ('weight',)
    temperature: float

    def __init__(self, scores: Scores = 'sigmoid', temperature: float = 1.0, foreground: bool = True) -> None:
        super().__init__()
        if scores not in ('sigmoid', 'softmax'):
            raise ConfigError(f"Expected scores 'sigmoid' or 'softmax' but got {scores!r}. Take the model's own.")
        self.scores: Scores = scores
        self.temperature = check_positive(temperature, 'temperature', 'Try 1 to 4.')
        self.foreground = foreground

    def forward(
        self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        if weight is None and self.foreground:
            weight = foreground_weight(teacher, scores=self.scores)
        return query_class_divergence(student, teacher, scores=self.scores, temperature=self.temperature, weight=weight)
