"""Two-dimensional rotary positions with the frequencies of a video transformer, of which a narrower head keeps some.

H W position on the grid of patches, S width of the teacher's head, T width of ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10000.0


def axis_widths(head: int) -> tuple[int, int, int]:
    """Return how many values of a head turn with time, height and width (diffusers' ``WanRotaryPosEmbed``).

    Example:
        >>> axis_widths(128)
        (44, 42, 42)
    """
    side = 2 * (head // 6)
    return head - 2 * side, side, side


def kept_pairs(source: int, target: int) -> list[int]:
    """Return which rotary pairs of a head of S values one of T keeps: evenly spread, as ``rotary_rows`` chooses them.

    Example:
        >>> kept_pairs(16, 8)
        [0, 2, 4, 6]
    """
    return [j * (source // 2) // (target // 2) for j in range(target // 2)]


def rotary_angles(grid: tuple[int, int], source: int, target: int) -> Tensor:
    """Return the angles (H W, T / 2) by which the pairs of a head turn at each position of the first frame.

    Pairs that turn with time stand still. Frequencies are theta^(-2 i / width of the axis), in float64.

    Args:
        grid: (H, W) in patches.
        source: S; equal to T for frequencies of its own.
        target: T.
    """
    rows = torch.arange(grid[0], dtype=torch.float64).repeat_interleave(grid[1])
    columns = torch.arange(grid[1], dtype=torch.float64).repeat(grid[0])
    parts = []
    for place, width in zip((torch.zeros_like(rows), rows, columns), axis_widths(source), strict=True):
        frequencies = THETA ** (-torch.arange(0, width, 2, dtype=torch.float64) / max(width, 1))
        parts.append(place[:, None] * frequencies)
    return torch.cat(parts, 1)[:, kept_pairs(source, target)]


def rotate(values: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn neighbouring values of each head.

    Args:
        values: (N, heads, H W, T).
        angles: cosines and sines (H W, T / 2).
    """
    cosine, sine = angles
    first, second = values.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([first * cosine - second * sine, first * sine + second * cosine], -1)
    return turned.flatten(-2).to(values.dtype)
