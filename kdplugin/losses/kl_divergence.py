"""Response distillation: KL divergence between softened class distributions.

N image, C class, H W position on the grid of the logits.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdplugin.losses.base import DistillationLoss, Ignored, check_positive, comparable, mean_over_valid
from kdplugin.registry import MODELS


def softmax_divergence(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, dim: int = 1) -> Tensor:
    """Return T^2 * KL(softmax(teacher / T) || softmax(student / T)) along one axis, not averaged over the others."""
    log_student = F.log_softmax(student / temperature, dim=dim)
    log_teacher = F.log_softmax(teacher / temperature, dim=dim)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction='none', log_target=True).sum(dim)


def sigmoid_divergence(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return T^2 * KL(Bernoulli(sigmoid(teacher / T)) || Bernoulli(sigmoid(student / T))) of each element."""
    student, teacher = student / temperature, teacher / temperature
    on = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    off = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return temperature**2 * (on + off)


def kl_divergence(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    sigmoid: bool = False,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return T^2 * mean over valid pixels of KL(softmax(teacher / T) || softmax(student / T)).

    Paper: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531; T^2 keeps the
    size of the gradient when T changes. The mean runs over pixels, so the value does not grow with the image
    (``reduction='batchmean'`` on (N, C, H, W) would divide by N alone).

    Args:
        student: logits (N, C, H, W) or (N, C).
        teacher: logits of the same shape; no gradient flows into them.
        temperature: T > 0.
        sigmoid: each class is scored by itself, as dense detectors do: the sum over classes of
            KL(Bernoulli(sigmoid(teacher / T)) || Bernoulli(sigmoid(student / T))) instead.
        labels: class indices (N, H', W'); pixels labelled ``ignore_index`` do not count.
        ignore_index: the label that marks pixels to leave out; None counts every pixel, several
            labels, such as (0, 255), leave out the background too.

    Raises:
        TapError: the shapes differ.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[2.0]], [[-1.0]]]])
        >>> float(kl_divergence(logits, logits, temperature=4.0))
        0.0
    """
    student, teacher = comparable(student, teacher)
    if sigmoid:
        divergence = sigmoid_divergence(student, teacher, temperature=temperature).sum(1)
    else:
        divergence = softmax_divergence(student, teacher, temperature=temperature)
    return mean_over_valid(divergence, labels, ignore_index)


@MODELS.register_module()
class KLDivergenceLoss(DistillationLoss):
    """``kl_divergence`` with its settings.

    Args:
        temperature: T > 0, applied to both sides.
        sigmoid: each class is scored by itself.
        ignore_index: label of the pixels that do not count; None counts all, several may be given.
    """

    compares = 'logits'
    temperature: float

    def __init__(self, temperature: float = 1.0, sigmoid: bool = False, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.temperature = check_positive(temperature, 'temperature', 'Try 1 to 8.')
        self.sigmoid = sigmoid
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        settings = dict(temperature=self.temperature, sigmoid=self.sigmoid, ignore_index=self.ignore_index)
        return kl_divergence(student, teacher, labels=labels, **settings)  # type: ignore[arg-type]
