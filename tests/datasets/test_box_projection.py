"""Boxes on images, against a fine grid of points on each box, seen by a pinhole."""

from __future__ import annotations

import numpy as np
import pytest

from kdplugin.datasets.box_projection import NEAR, box_corners, project_boxes

SIZE = (90, 160)
FOCAL = 100.0
# A camera at the origin that looks along y: x to its right, y down.
CAMERA = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
INTRINSIC = np.array([[FOCAL, 0, 80, 0], [0, FOCAL, 45, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
TO_IMAGE = INTRINSIC @ CAMERA


def box(x: float, y: float, width: float = 2, length: float = 4, yaw: float = 0.0, height: float = 1.5) -> np.ndarray:
    return np.array([x, y, 0.0, width, length, height, yaw, 0.0, 0.0])


def by_points(one: np.ndarray, steps: int = 41) -> np.ndarray:
    """Return the rectangle of a dense grid of points inside a box, those before the camera."""
    ticks = np.linspace(-0.5, 0.5, steps)
    grid = np.stack(np.meshgrid(ticks, ticks, ticks), axis=-1).reshape(-1, 3) * one[3:6]
    cos, sin = np.cos(-one[6]), np.sin(-one[6])
    points = grid @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]).T + one[:3]
    seen = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ TO_IMAGE[:3].T
    seen = seen[seen[:, 2] >= NEAR]
    places = seen[:, :2] / seen[:, 2:]
    low, high = places.min(0), places.max(0)
    return np.clip(np.concatenate([low, high]), 0, [160, 90, 160, 90])


@pytest.mark.parametrize(
    'one',
    [box(0, 20), box(-6, 15, yaw=0.7), box(4, 9, yaw=-2.1), box(3, 30, 0.6, 0.6, height=1.8)],
    ids=['ahead', 'turned', 'turned right', 'small'],
)
def test_rectangles_are_those_of_the_boxes_points(one: np.ndarray) -> None:
    rectangles, kept = project_boxes(one[None], TO_IMAGE, SIZE)
    assert kept.tolist() == [0]
    np.testing.assert_allclose(rectangles[0], by_points(one), atol=1e-9)


def test_a_box_ahead_by_hand() -> None:
    """Its near side, 2 m wide and 1.5 m high at 10 m, is what is widest."""
    rectangles, _ = project_boxes(box(0, 12)[None], TO_IMAGE, SIZE)
    np.testing.assert_allclose(rectangles[0], [70, 37.5, 90, 52.5])


def test_yaw_turns_clockwise_seen_from_above() -> None:
    corners = box_corners(box(0, 0, width=0.01, length=4, yaw=0.3)[None])[0]
    front = corners[corners[:, 1] > 0].mean(0)
    np.testing.assert_allclose(front[:2], [2 * np.sin(0.3), 2 * np.cos(0.3)], atol=1e-6)


def test_a_box_beside_the_camera_keeps_its_visible_part() -> None:
    """It reaches from 3 m behind the camera to 3 m before it: its corners alone would span the wrong side."""
    one = box(2.5, 0, length=6)
    rectangles, kept = project_boxes(one[None], TO_IMAGE, SIZE)
    assert kept.tolist() == [0]
    left = 80 + FOCAL * 1.5 / 3
    np.testing.assert_allclose(rectangles[0], [left, 0, 160, 90])


def test_what_is_behind_outside_or_tiny_is_left_out() -> None:
    boxes = np.stack([box(0, -10), box(40, 10), box(0, 20), box(0, 300, 0.5, 0.5, height=0.5)])
    rectangles, kept = project_boxes(boxes, TO_IMAGE, SIZE)
    assert kept.tolist() == [2]
    assert rectangles.shape == (1, 4)
    assert project_boxes(np.zeros((0, 9)), TO_IMAGE, SIZE)[0].shape == (0, 4)
