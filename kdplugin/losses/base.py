"""What distillation losses have in common: the base of their classes, and the parts their formulas share.

N image, C channel, H W position on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdplugin.errors import ConfigError, TapError


class DistillationLoss(nn.Module):
    """Base of the thin classes: settings here, arithmetic in the function beside the class.

    ``compares`` tells the engine what it may do before the loss. 'features' of different widths get an adapter, and
    the student's are resized to the teacher's; 'logits' must agree in their classes and are resized too; tokens
    arrive as maps, or as (N, C, L) where they lie on no grid. 'relations' come as they are, because the formula itself
    takes other widths (or is wrong on resized tensors).

    ``least_images`` of a batch are what the loss compares; of fewer it is 0.

    ``takes`` names the keywords that the loss can use beside the two tensors, ``needs`` those among them without
    which it cannot be computed. Every class accepts ``labels``, used or not.
    """

    compares: ClassVar[Literal['features', 'logits', 'relations']]
    takes: ClassVar[tuple[str, ...]] = ('labels',)
    needs: ClassVar[tuple[str, ...]] = ()
    least_images: ClassVar[int] = 1
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


def check_positive(value: float, name: str, advice: str) -> float:
    """Return a setting of a loss, or raise ConfigError unless it is finite and > 0."""
    if not 0 < value < float('inf'):
        raise ConfigError(f'Expected a finite {name} > 0 but got {value}. {advice}')
    return value


def precise(values: Tensor) -> Tensor:
    """Return half precision as float32; float64 stays what it is."""
    return values if values.dtype == torch.float64 else values.float()


def comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both tensors in float32 or better, the teacher's without its graph; raises TapError on other shapes."""
    check_same_shape(student, teacher)
    return precise(student), precise(teacher.detach())


Ignored = int | Sequence[int] | None


def on_grid(labels: Tensor, shape: Sequence[int]) -> Tensor:
    """Return labels (N, H', W') resampled by nearest neighbour to a grid (N, H, W)."""
    if labels.shape[1:] == tuple(shape[1:]):
        return labels
    return F.interpolate(labels[:, None].float(), size=tuple(shape[1:]), mode='nearest')[:, 0].to(labels.dtype)


def valid_positions(labels: Tensor | None, ignore_index: Ignored, shape: Sequence[int]) -> Tensor | None:
    """Return which positions (N, H, W) of a grid count, or None if all do.

    Labels without the grid's number of axes say nothing about it: a vector (N, C) has no positions.

    Args:
        labels: class indices (N, H', W'), brought to the grid.
        ignore_index: the label of positions that do not count; several may be given.
        shape: of the grid, (N, H, W).
    """
    if labels is None or ignore_index is None or labels.dim() != len(shape):
        return None
    ignored = torch.as_tensor(ignore_index, device=labels.device)
    return torch.isin(on_grid(labels, shape), ignored.to(labels.dtype), invert=True)


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return sum(weight * values) / sum(weight); 0 with a gradient path where nothing has weight.

    Values of weight 0 may be anything, NaN included.

    Args:
        values: of any shape, also empty.
        weight: of the same shape, bool or >= 0; None is the plain mean.
    """
    if weight is None:
        return values.mean() if values.numel() else values.sum()
    weight = weight.detach().to(values.dtype)
    total = weight.sum()
    return torch.where(weight > 0, weight * values, 0).sum() / torch.where(total > 0, total, 1)


def weight_of(values: Tensor, weight: Tensor | None, valid: Tensor | None = None) -> Tensor | None:
    """Return the weight of each value, 0 where it is not valid; None where all count alike.

    Raises:
        TapError: the weight has another shape than the values.
    """
    if weight is None:
        return valid
    if weight.shape != values.shape:
        raise TapError(
            f'Expected weights of shape {tuple(values.shape)} but got {tuple(weight.shape)}. Give one weight >= 0 for '
            'each position, box or query.'
        )
    return weight if valid is None else torch.where(valid, weight, 0)


def mean_over_valid(values: Tensor, labels: Tensor | None, ignore_index: Ignored) -> Tensor:
    """Average values (N, H, W) over the pixels whose label is not ``ignore_index``, or none of several.

    Without labels every position counts, and so it does where the values have none (N,) while the labels have. If no
    pixel is valid the result is 0 with a gradient path.
    """
    return weighted_mean(values, valid_positions(labels, ignore_index, values.shape))


def unit(values: Tensor, dim: int) -> Tensor:
    """Return vectors of length 1; those not longer than 1e-12 become 0 and get no gradient. NaN stays NaN."""
    squares = values.square().sum(dim, keepdim=True)
    short = squares <= 1e-24
    return torch.where(short, 0, values / torch.where(short, 1, squares).sqrt())


def correlation(
    student: Tensor, teacher: Tensor, dim: tuple[int, ...], valid: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return Pearson's r along ``dim``, and whether the student and the teacher vary there at all.

    Where either does not (up to float32's resolution) r is 0 and has no gradient. NaN stays NaN.

    Args:
        student: of any shape.
        teacher: of the same shape.
        dim: the axes that make one sample.
        valid: bool, broadcast to the values; invalid ones do not count.
    """
    (ours, our_length), (theirs, their_length) = (_centred(side, dim, valid) for side in (student, teacher))
    lengths = our_length * their_length
    both = lengths != 0
    r = torch.where(both, (ours * theirs).sum(dim) / torch.where(both, lengths, 1), 0)
    return r, our_length != 0, their_length != 0


def _centred(values: Tensor, dim: tuple[int, ...], valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return values minus their mean, and the length of that vector, 0 without a slope where nothing varies.

    The mean carries no graph: its share of the gradient of r cancels, because centred values add up to 0.
    """
    counts: int | Tensor = math.prod(values.shape[axis] for axis in dim)
    if valid is not None:
        counts = valid.expand(values.shape).sum(dim, keepdim=True).clamp(min=1)
        values = torch.where(valid, values, 0)
    mean = values.detach().sum(dim, keepdim=True) / counts
    centred = values - mean
    if valid is not None:
        centred = torch.where(valid, centred, 0)
    squares = centred.square().sum(dim)
    same = squares <= (counts * (1e-6 * mean).square() + 1e-24).sum(dim)
    return centred, torch.where(same, 0, torch.where(same, 1, squares).sqrt())
