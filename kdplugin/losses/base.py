"""What every distillation loss has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdplugin.errors import TapError


class DistillationLoss(nn.Module):
    """Base of the thin classes: settings here, arithmetic in the function beside the class.

    ``compares`` tells the engine what it may do before the loss: 'features' of different widths get an adapter,
    'logits' must agree in their classes.
    """

    compares: ClassVar[Literal['features', 'logits']]
    temperature: float | None = None

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        """Return one scalar from tensors of equal shape (N, C, ...) and, where there are any, labels (N, H, W)."""
        raise NotImplementedError


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raise TapError unless both tensors have one shape."""
    if student.shape != teacher.shape:
        raise TapError(
            f'Expected student and teacher tensors of one shape but got {tuple(student.shape)} and '
            f'{tuple(teacher.shape)}. Tap layers of equal shape or let the engine adapt them.'
        )


Ignored = int | Sequence[int] | None


def mean_over_valid(values: Tensor, labels: Tensor | None, ignore_index: Ignored) -> Tensor:
    """Average values (N, H, W) over the pixels whose label is not ``ignore_index``, or none of several.

    Labels (N, H', W') of another size are resampled to the grid of the values by nearest neighbour. Without labels
    every position counts, and so it does where the values have none (N,) while the labels have. If no pixel is
    valid the result is 0 with a gradient path.
    """
    if labels is None or ignore_index is None or labels.dim() != values.dim():
        return values.mean()
    if labels.shape[1:] != values.shape[1:]:
        labels = F.interpolate(labels[:, None].float(), size=values.shape[1:], mode='nearest')[:, 0]
    ignored = torch.as_tensor(ignore_index, device=labels.device)
    valid = torch.isin(labels, ignored.to(labels.dtype), invert=True)
    return torch.where(valid, values, 0).sum() / valid.sum().clamp(min=1)
