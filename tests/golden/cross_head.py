"""Make cross_head.json: CrossKD's two terms for GFL and for RetinaNet in float64 numpy, without torch and mmdet.

The heads have one convolution and ReLU in each tower, taken from the teacher (the student runs none by itself), one
level of 2 x 3 cells, 2 classes, reg_max 2 and a scale of 1.5 (GFL), 2 anchors and the boxes' deltas as they are
(RetinaNet), too small for mmdet's limit of log sizes. C channel, H W position, A anchor, B bin.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, softmax, xlogy

CHANNELS, HIDDEN, CLASSES, BINS, ANCHORS, GRID = 2, 3, 2, 3, 2, (2, 3)
SCALE, STRIDE = 1.5, 8
BOXES = np.array([[-8.0, -8.0, 8.0, 8.0], [-16.0, -8.0, 16.0, 8.0]])
"""The anchors around the first corner of a cell."""


def convolve(values: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Return (O, H, W) of a 3x3 convolution of (C, H, W) with padding 1."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    rows, columns = values.shape[1:]
    windows = np.stack([padded[:, y : y + rows, x : x + columns] for y in range(3) for x in range(3)], axis=1)
    return np.einsum('ckhw,ock->ohw', windows, weight.reshape(*weight.shape[:2], 9)) + bias[:, None, None]


def head(features: list[np.ndarray], weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return class logits and box predictions, position by position, of the features of both towers."""
    out = []
    for tower, last, side in zip(('cls_convs', 'reg_convs'), ('cls', 'reg'), features, strict=True):
        hidden = np.maximum(convolve(side, weights[f'{tower}.0.conv.weight'], weights[f'{tower}.0.conv.bias']), 0)
        out.append(convolve(hidden, weights[f'{last}.weight'], weights[f'{last}.bias']))
    return out


def rows_of(values: np.ndarray, width: int) -> np.ndarray:
    """Return (H W A, width) of (A width, H, W)."""
    return values.reshape(-1, width, values.shape[1] * values.shape[2]).transpose(2, 0, 1).reshape(-1, width)


def class_term(student: np.ndarray, teacher: np.ndarray, beta: float) -> float:
    """Return the mean over rows of the sum over classes of |p - y|^beta * BCE(p, y)."""
    p, y = expit(student), expit(teacher)
    return float((np.abs(p - y) ** beta * -(xlogy(y, p) + xlogy(1 - y, 1 - p))).sum(1).mean())


def distribution_term(student: np.ndarray, teacher: np.ndarray, weight: np.ndarray, temperature: float) -> float:
    """Return T^2 times the weighted mean over rows and sides of KL."""
    ours, theirs = (side.reshape(len(side), 4, -1) / temperature for side in (student, teacher))
    divergence = (softmax(theirs, -1) * (log_softmax(theirs, -1) - log_softmax(ours, -1))).sum(-1).mean(-1)
    return float(temperature**2 * (weight * divergence).sum() / weight.sum())


def decode(anchors: np.ndarray, deltas: np.ndarray) -> np.ndarray:
    """Return corners from deltas of centre and log size."""
    size = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + size / 2 + deltas[:, :2] * size
    half = size * np.exp(deltas[:, 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def overlap_term(student: np.ndarray, teacher: np.ndarray, weight: np.ndarray) -> float:
    """Return the weighted mean over boxes of 1 - GIoU."""

    def area(corners: np.ndarray) -> np.ndarray:
        return np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1)

    low, high = np.minimum(student, teacher), np.maximum(student, teacher)
    inner = area(np.concatenate([high[:, :2], low[:, 2:]], axis=1))
    hull = area(np.concatenate([low[:, :2], high[:, 2:]], axis=1))
    union = area(student) + area(teacher) - inner
    return float((weight * (1 - inner / union + (hull - union) / hull)).sum() / weight.sum())


def case(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    anchors, width = (1, 4 * BINS) if kind == 'GFL' else (ANCHORS, 4)

    def eighths(*shape: int) -> np.ndarray:
        return np.round(8 * rng.standard_normal(shape)) / 8

    weights = {}
    for tower, last, out in (('cls_convs', 'cls', anchors * CLASSES), ('reg_convs', 'reg', anchors * width)):
        weights[f'{tower}.0.conv.weight'], weights[f'{tower}.0.conv.bias'] = eighths(HIDDEN, CHANNELS, 3, 3), eighths(3)
        weights[f'{last}.weight'], weights[f'{last}.bias'] = eighths(out, HIDDEN, 3, 3) / 16, eighths(out)
    features = dict(student=eighths(CHANNELS, *GRID), teacher=eighths(CHANNELS, *GRID))
    (our_scores, ours), (their_scores, theirs) = (head([side] * 2, weights) for side in features.values())
    scores, targets = rows_of(our_scores, CLASSES), rows_of(their_scores, CLASSES)
    weight = expit(targets).max(1)
    if kind == 'GFL':
        boxes = distribution_term(rows_of(SCALE * ours, width), rows_of(SCALE * theirs, width), weight, 2.0)
    else:
        corners = STRIDE * np.array([[x, y, x, y] for y in range(GRID[0]) for x in range(GRID[1])])
        priors = (corners[:, None] + BOXES).reshape(-1, 4)
        boxes = overlap_term(decode(priors, rows_of(ours, width)), decode(priors, rows_of(theirs, width)), weight)
    plain = {name: value.tolist() for name, value in weights.items()}
    inputs = {side: value.tolist() for side, value in features.items()}
    return dict(name=kind, weights=plain, **inputs, classes=class_term(scores, targets, 1.0), boxes=boxes)


if __name__ == '__main__':
    rng = np.random.default_rng(0)
    how = f'python tests/golden/{Path(__file__).name}: float64 numpy'
    cases = [case(kind, rng) for kind in ('GFL', 'RetinaNet')]
    Path(__file__).with_suffix('.json').write_text(json.dumps(dict(how=how, cases=cases)) + '\n')
