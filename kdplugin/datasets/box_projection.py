"""Boxes in space as corners, and as rectangles on the images of cameras.

M box, H W pixel. Right-handed coordinates in metres; a camera looks along its z axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
NEAR = 0.1
"""Metres before a camera: what is nearer is cut off."""
SIGNS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
EDGES = np.array([(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count('1') == 1])


def box_corners(boxes: Floats) -> Floats:
    """Return the eight corners of boxes, (M, 8, 3).

    Args:
        boxes: (M, 7 or more): centre x, y, z, width (along x at yaw 0), length (along y), height, and yaw, which turns
            clockwise seen from above, as the infos of Bench2Drive have it (prepare_B2D.py of Bench2DriveZoo).

    Example:
        >>> import numpy as np
        >>> corners = box_corners(np.array([[10.0, 0, 0, 2, 4, 1, np.pi / 2]]))
        >>> np.ptp(corners[0], axis=0).round(6).tolist()
        [4.0, 2.0, 1.0]
    """
    offsets = SIGNS * boxes[:, None, 3:6] / 2
    cos, sin = np.cos(-boxes[:, 6])[:, None], np.sin(-boxes[:, 6])[:, None]
    x, y = offsets[..., 0] * cos - offsets[..., 1] * sin, offsets[..., 0] * sin + offsets[..., 1] * cos
    return np.stack([x, y, offsets[..., 2]], axis=-1) + boxes[:, None, :3]


def project_boxes(boxes: Floats, to_image: Floats, size: tuple[int, int], least: float = 2.0) -> tuple[Floats, Any]:
    """Return the rectangles around boxes on one image, (M', 4) as x1 y1 x2 y2, and which of the M boxes they are of.

    The part of a box behind the camera is cut off along the edges, so that a box that the camera stands beside
    keeps its visible part.

    Args:
        boxes: see ``box_corners``.
        to_image: (4, 4), from the boxes' space to (x depth, y depth, depth, 1) in pixels: intrinsics times pose.
        size: (H, W) to which rectangles are cut.
        least: pixels that a rectangle has in both directions, to count.
    """
    corners = box_corners(boxes.astype(float))
    points = np.concatenate([corners, np.ones_like(corners[..., :1])], axis=-1) @ to_image[:3].T
    starts, ends = points[:, EDGES[:, 0]], points[:, EDGES[:, 1]]
    span = ends[..., 2] - starts[..., 2]
    share = np.clip((NEAR - starts[..., 2]) / np.where(span == 0, 1, span), 0, 1)[..., None]
    cuts = starts + (ends - starts) * share
    crosses = (starts[..., 2] < NEAR) != (ends[..., 2] < NEAR)
    seen = np.concatenate([points, cuts], axis=1)
    valid = np.concatenate([points[..., 2] >= NEAR, crosses], axis=1)
    places = seen[..., :2] / np.where(valid, seen[..., 2], 1)[..., None]
    low = np.where(valid[..., None], places, np.inf).min(axis=1, initial=np.inf)
    high = np.where(valid[..., None], places, -np.inf).max(axis=1, initial=-np.inf)
    limits = np.array([size[1], size[0]], dtype=float)
    low, high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    kept = np.flatnonzero((high - low >= least).all(axis=1) & valid.any(axis=1))
    return np.concatenate([low, high], axis=1)[kept], kept
