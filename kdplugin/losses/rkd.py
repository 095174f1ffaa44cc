"""RKD: distillation of how the images of a batch lie to each other in feature space.

N image, C channel, H W position on the grid of the feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses.base import DistillationLoss, Ignored, precise, valid_positions, weighted_mean
from kdplugin.registry import MODELS


def relational_distance(
    student: Tensor,
    teacher: Tensor,
    *,
    distance_weight: float = 1.0,
    angle_weight: float = 2.0,
    labels: Tensor | None = None,
    ignore_index: Ignored = 255,
) -> Tensor:
    """Return distance_weight * RKD-D + angle_weight * RKD-A between the batches seen as N points.

    Paper: Park et al., "Relational Knowledge Distillation", arXiv 1904.05068. A map's point is its mean over valid
    positions. RKD-D: mean over pairs of points of Huber(d_s, d_t), d the distance divided by the mean distance. RKD-A:
    mean over triples of Huber of the cosines of the angle at the second point. Huber is smooth_l1 with delta 1. Neither
    changes when all points are rotated, moved or scaled, and both sides may have any number of channels. The means
    run over distinct points; the authors' code adds the zeros between a point and itself. A batch needs 3 images on
    each device: of 1 or 2 the value is 0.

    Args:
        student: features (N, C, H, W) or (N, C).
        teacher: features (N, C', H', W') or (N, C'); no gradient flows into them.
        distance_weight: of RKD-D.
        angle_weight: of RKD-A; the paper takes twice that of RKD-D.
        labels: class indices (N, H'', W''); positions labelled ``ignore_index`` do not count, nor do images without
            any other.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: not the same number of images on both sides.
    """
    if min(student.dim(), teacher.dim()) < 2 or len(student) != len(teacher):
        raise TapError(
            f'Expected features (N, C, ...) of the same images but got {tuple(student.shape)} and '
            f'{tuple(teacher.shape)}. Tap layers that see whole images, not windows or boxes of one side alone.'
        )
    (ours, seen), (theirs, also_seen) = (_points(s, labels, ignore_index) for s in (student, teacher.detach()))
    there = seen & also_seen
    other = ~torch.eye(len(there), dtype=torch.bool, device=there.device)
    pairs = other & there[:, None] & there
    (our_distance, our_cosine), (their_distance, their_cosine) = (_relations(side, pairs) for side in (ours, theirs))
    triples = pairs[:, :, None] & pairs[:, None] & other
    apart = their_distance > 0
    distance = weighted_mean(F.smooth_l1_loss(our_distance, their_distance, reduction='none'), pairs)
    angle = F.smooth_l1_loss(our_cosine, their_cosine, reduction='none')
    return distance_weight * distance + angle_weight * weighted_mean(
        angle, triples & apart[:, :, None] & apart[:, None]
    )


def _points(features: Tensor, labels: Tensor | None, ignore_index: Ignored) -> tuple[Tensor, Tensor]:
    """Return the mean over valid positions (N, C), and which images have any (N)."""
    features = precise(features)
    valid = valid_positions(labels, ignore_index, (len(features), *features.shape[2:])) if features.dim() > 2 else None
    if valid is None:
        points = features.flatten(2).mean(2) if features.dim() > 2 else features
        return points, torch.ones(len(features), dtype=torch.bool, device=features.device)
    count = valid.flatten(1).sum(1)
    return torch.where(valid[:, None], features, 0).flatten(2).sum(2) / count.clamp(min=1)[:, None], count > 0


def _relations(points: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return distances divided by their mean over pairs (N, N), and cosines (N, N, N) of the angle at the first point.

    All come from the products of centred points, so that memory grows with N and not with the width of the features.
    """
    with torch.autocast(points.device.type, enabled=False):
        points = points - points.mean(0)
        products = points @ points.T
    lengths = products.diagonal()
    scale = lengths[:, None] + lengths
    squares = scale - 2 * products
    near = (squares <= 10 * torch.finfo(points.dtype).eps * scale) | ~pairs
    distance = torch.where(near, 0, torch.where(near, 1, squares).sqrt())
    mean = weighted_mean(distance, ~near)
    corner = products - products[:, :, None] - products[:, None] + lengths[:, None, None]
    sides = distance[:, :, None] * distance[:, None]
    cosine = torch.where(sides > 0, corner / torch.where(sides > 0, sides, 1), 0)
    return distance / torch.where(mean > 0, mean, 1), cosine


@MODELS.register_module()
class RKDLoss(DistillationLoss):
    """``relational_distance`` with its settings.

    Args:
        distance_weight: of the distances between two images.
        angle_weight: of the angles between three.
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'relations'
    least_images = 3

    def __init__(self, distance_weight: float = 1.0, angle_weight: float = 2.0, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.distance_weight = distance_weight
        self.angle_weight = angle_weight
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        weights = dict(distance_weight=self.distance_weight, angle_weight=self.angle_weight)
        return relational_distance(student, teacher, labels=labels, ignore_index=self.ignore_index, **weights)
