"""Where the objects of an image lie on a feature map, and where a feature map is active (FGD's masks).

N image, C channel, H W position on the grid of a level, M object of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def object_mask(boxes: Tensor, image_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return (H, W): 1 / (cells of the object) on an object, 0 elsewhere; where objects overlap the smallest counts.

    Paper: Yang et al., arXiv 2111.11837, binary mask and scale mask in one. As in the authors' code an object covers
    the cells from floor(x1) to ceil(x2) inclusive, in units of the grid, and those beyond the border are counted.

    Args:
        boxes: corners x1 y1 x2 y2 in pixels of the padded batch (M, 4); M may be 0.
        image_size: height and width of the padded batch, not of the image before padding, which would move objects.
        grid: H and W of the feature map.

    Example:
        >>> import torch
        >>> object_mask(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), (32, 32), (4, 4))[0].tolist()
        [0.25, 0.25, 0.0, 0.0]
    """
    (height, width), (rows, columns) = image_size, grid
    scale = boxes.new_tensor([columns / width, rows / height])
    first, last = (boxes[:, :2] * scale).floor(), (boxes[:, 2:] * scale).ceil()
    inside = [
        (first[:, axis, None] <= cells) & (cells <= last[:, axis, None])
        for axis, cells in enumerate(torch.arange(n, device=boxes.device) for n in (columns, rows))
    ]
    share = 1 / (last - first + 1).prod(1)
    covered = torch.where(inside[1][:, :, None] & inside[0][:, None], share[:, None, None], 0)
    return torch.cat([covered.new_zeros(1, rows, columns), covered]).amax(0)


def spatial_attention(features: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
    """Return (N, H, W): softmax over positions of mean over channels |x| / T, times the positions, so of mean 1.

    Args:
        features: (N, C, H, W).
        temperature: T > 0.
        valid: bool (N, H, W), False where positions do not count: there it is 0.
    """
    activity = features.abs().mean(1).flatten(1) / temperature
    if valid is None:
        return (activity.shape[1] * activity.softmax(1)).view_as(features[:, 0])
    flat = valid.flatten(1)
    share = torch.where(flat, activity, torch.finfo(activity.dtype).min / 2).softmax(1)
    return torch.where(valid, (flat.sum(1, keepdim=True) * share).view_as(features[:, 0]), 0)


def channel_attention(features: Tensor, temperature: float, valid: Tensor | None = None) -> Tensor:
    """Return (N, C): softmax over channels of mean over positions |x| / T, times the channels, so of mean 1.

    Args:
        features: (N, C, H, W), 0 where not valid.
        temperature: T > 0.
        valid: bool (N, H, W), False where positions do not count.
    """
    activity = features.abs().flatten(2)
    if valid is None:
        mean = activity.mean(2)
    else:
        mean = activity.sum(2) / valid.flatten(1).sum(1, keepdim=True).clamp(min=1)
    return features.shape[1] * (mean / temperature).softmax(1)
