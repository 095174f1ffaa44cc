"""Camera rigs as batches of single images.

B rig, V view of a rig, H W pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kdplugin.errors import DataError


def fold_views(images: Tensor, samples: Sequence[Any] | None) -> tuple[Tensor, list[Any] | None]:
    """Return (B V, 3, H, W) images and one data sample for each of them; single images come back as they are.

    Args:
        images: (B, 3, H, W), or (B, V, 3, H, W).
        samples: for each image, or rigs for each rig (see ``views_of``); None where there are none.

    Raises:
        DataError: the images have other axes, or there are as many samples as neither images nor rigs.

    Example:
        >>> import torch
        >>> fold_views(torch.zeros(2, 6, 3, 32, 64), None)[0].shape
        torch.Size([12, 3, 32, 64])
    """
    if images.dim() not in (4, 5):
        raise DataError(
            f'Expected images (B, 3, H, W) or rigs of views (B, V, 3, H, W) but got {tuple(images.shape)}. Stack them.'
        )
    folded = images.flatten(0, 1) if images.dim() == 5 else images
    if not samples:
        return folded, None
    flat = [view for sample in samples for view in views_of(sample)]
    if len(flat) != len(folded):
        raise DataError(
            f'Expected a data sample for each of {len(folded)} images but got {len(flat)}. Give each rig one for each '
            'of its views.'
        )
    return folded, flat


def views_of(sample: Any) -> list[Any]:
    """Return the samples of a rig's views, a list or a data sample that has them as ``views``; or the sample alone."""
    if isinstance(sample, list | tuple):
        return list(sample)
    return list(sample.views) if 'views' in sample else [sample]
