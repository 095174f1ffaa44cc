"""FGD's focal part: feature distillation that looks at objects and at what is active in the teacher.

N image, C channel, H W position on the grid of a level, M object of an image. The global part owns parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses.base import (
    DistillationLoss,
    Ignored,
    check_positive,
    comparable,
    valid_positions,
    weighted_mean,
)
from kdplugin.losses.object_masks import channel_attention, object_mask, spatial_attention
from kdplugin.registry import MODELS


def focal_distance(
    student: Tensor,
    teacher: Tensor,
    *,
    boxes: Sequence[Tensor] | None,
    image_size: tuple[int, int] | None,
    temperature: float = 0.5,
    foreground: float = 1.0,
    background: float = 0.5,
    attention: float = 1.0,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return foreground * F + background * B + attention * A between two feature maps.

    Paper: Yang et al., "Focal and Global Knowledge Distillation for Detectors", arXiv 2111.11837. With A_S and A_C
    the teacher's attention over positions and channels (each of mean 1), d = mean over channels of A_C * (s - t)^2:
    F is the mean of A_S * d weighted by ``object_mask``, so that each object counts alike whatever its size; B its
    mean over the other positions of each image; A the mean |difference| of the sides' A_S plus that of their A_C.
    The authors' code sums: its foreground term is F times C times the objects per image, its background term B times
    C, its attention terms those of A times H W and C. Without any object F is 0.

    Args:
        student: features (N, C, H, W).
        teacher: features of the same shape; no gradient flows into them.
        boxes: objects of each image, corners x1 y1 x2 y2 (M, 4) in pixels of the padded batch; M may be 0.
        image_size: height and width of the padded batch in pixels.
        temperature: T > 0 of the attention.
        foreground: weight of F.
        background: weight of B.
        attention: weight of A.
        labels: class indices (N, H', W'); positions labelled ``ignore_index``, such as padding, do not count.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: the shapes differ.
        ConfigError: no boxes, or not those of each image.
    """
    if boxes is None or image_size is None or len(boxes) != len(student):
        got = 'none' if boxes is None or image_size is None else f'those of {len(boxes)}'
        raise ConfigError(
            f'Expected the boxes of {len(student)} images and the size of their batch but got {got}. Use FGDFocalLoss '
            'on detectors, whose batches carry objects.'
        )
    student, teacher = comparable(student, teacher)
    size, grid = image_size, (student.shape[2], student.shape[3])
    valid = valid_positions(labels, ignore_index, (len(student), *grid))
    if valid is not None:
        student, teacher = (torch.where(valid[:, None], side, 0) for side in (student, teacher))
    on_objects = torch.stack([object_mask(objects.to(student), size, grid) for objects in boxes])
    elsewhere = (on_objects == 0).to(student.dtype)
    if valid is not None:
        on_objects, elsewhere = on_objects * valid, elsewhere * valid
    elsewhere = elsewhere / elsewhere.sum((1, 2), keepdim=True).clamp(min=1)
    ours, theirs = (
        [spatial_attention(s, temperature, valid), channel_attention(s, temperature, valid)] for s in (student, teacher)
    )
    error = theirs[0] * (theirs[1][:, :, None, None] * (student - teacher).square()).mean(1)
    looks = weighted_mean((ours[0] - theirs[0]).abs(), valid)
    seen = None if valid is None else valid.flatten(1).any(1)[:, None].expand_as(ours[1])
    looks = looks + weighted_mean((ours[1] - theirs[1]).abs(), seen)
    return (
        foreground * weighted_mean(error, on_objects) + background * weighted_mean(error, elsewhere) + attention * looks
    )


@MODELS.register_module()
class FGDFocalLoss(DistillationLoss):
    """``focal_distance`` with its settings.

    Args:
        temperature: T > 0 of the attention.
        foreground: weight of the positions on objects.
        background: weight of the others.
        attention: weight of the attention's own difference.
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'features'
    takes = ('labels', 'boxes', 'image_size')
    needs = ('boxes', 'image_size')

    def __init__(
        self,
        temperature: float = 0.5,
        foreground: float = 1.0,
        background: float = 0.5,
        attention: float = 1.0,
        ignore_index: Ignored = 255,
    ) -> None:
        super().__init__()
        temperature = check_positive(temperature, 'temperature', 'The paper has 0.5.')
        self.weights = dict(temperature=temperature, foreground=foreground, background=background, attention=attention)
        self.ignore_index = ignore_index

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        labels: Tensor | None = None,
        boxes: Sequence[Tensor] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        keywords: dict[str, Any] = dict(labels=labels, ignore_index=self.ignore_index, **self.weights)
        return focal_distance(student, teacher, boxes=boxes, image_size=image_size, **keywords)
