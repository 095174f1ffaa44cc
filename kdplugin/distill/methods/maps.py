"""What methods on feature maps share: shapes of levels, adapted pairs of maps, and which cells show an image.

N image, C channel, H W position on the grid of a level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.layouts import match_size
from kdplugin.distill.methods.base import Method, StepContext
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import TapError
from kdplugin.losses.base import Ignored, valid_positions, weighted_mean

Shapes = list[tuple[int, ...]]


def map_shapes(method: Method, student: ProbeResult, teacher: ProbeResult) -> tuple[Shapes, Shapes]:
    """Return the shapes that the first tap of both sides puts out, level by level.

    Raises:
        TapError: a tensor is no map (N, C, H, W), or one side has more than the other.
    """
    (tap, *_), (other, *_) = method.student_taps, method.teacher_taps
    ours, theirs = student.shapes[tap], teacher.shapes[other]
    if len(ours) != len(theirs) or any(len(shape) != 4 for shape in (*ours, *theirs)):
        raise TapError(
            f'Expected pair {method.name!r} to see as many maps (N, C, H, W) on both sides but {tap!r} gives {ours} '
            f'and {other!r} gives {theirs}. Tap modules that put out features, such as necks of equally many levels.'
        )
    return ours, theirs


def adapted_levels(
    method: Method, context: StepContext, adapters: nn.ModuleList | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the maps of both sides level by level, the student's brought to the teacher's channels and size."""
    for level, (ours, theirs) in enumerate(method.levels(context)):
        yield match_size(ours if adapters is None else adapters[level](ours), theirs), theirs


def counted_cells(context: StepContext, features: Tensor, ignore_index: Ignored = 255) -> Tensor | None:
    """Return which positions (N, H, W) of a map (N, C, H, W) count, None if all do.

    Those in the padding beside an image do not, nor do those that mmseg labels ``ignore_index``.
    """
    shape = (len(features), *features.shape[2:])
    labelled = valid_positions(context.labels, ignore_index, shape)
    inside = cells_in_images(context.data_samples, context.image_size, shape)
    if inside is None:
        return labelled
    inside = inside.to(features.device)
    return inside if labelled is None else labelled & inside


def cells_in_images(
    samples: Sequence[Any] | None, image_size: tuple[int, int] | None, shape: Sequence[int]
) -> Tensor | None:
    """Return (N, H, W): whether a cell begins inside its image, as mmdet's anchors do; None where no image is padded.

    Args:
        samples: with ``img_shape``, the height and width of the image before padding.
        image_size: height and width of the padded batch.
        shape: N, H and W.
    """
    if not samples or image_size is None or any('img_shape' not in sample for sample in samples):
        return None
    sizes = [tuple(sample.img_shape[:2]) for sample in samples]
    if all(size == tuple(image_size) for size in sizes):
        return None
    height, width = (
        torch.arange(cells) * (pixels / cells) for cells, pixels in zip(shape[1:], image_size, strict=True)
    )
    return torch.stack([(height < size[0])[:, None] & (width < size[1]) for size in sizes])


def mean_over_levels(errors: Sequence[Tensor], counted: Sequence[Tensor | None]) -> Tensor:
    """Return the mean of errors (N, H, W) over the positions that count of all levels together."""
    weights = [
        torch.ones_like(error) if mask is None else mask.to(error)
        for error, mask in zip(errors, counted, strict=True)
    ]  # fmt: skip
    return weighted_mean(*(torch.cat([value.flatten() for value in values]) for values in (errors, weights)))
