"""Find for each of the teacher's queries the student's query that it is to teach.

N image, L decoder layer, Q query, K query of the teacher that teaches, C class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from kdplugin.losses.query_class import Scores

WORST = 1e6
"""Cost in place of one that is not finite, so that the distance, not the assignment, tells of a NaN."""


def class_costs(student: Tensor, teacher: Tensor, *, scores: Scores = 'sigmoid', temperature: float = 1.0) -> Tensor:
    """Return (..., K, Q): T^2 times the cross entropy between teacher and student of each pair of queries.

    It is their KL divergence but for a term of the teacher's query alone, which no assignment changes.

    Args:
        student: logits (..., Q, C).
        teacher: logits (..., K, C).
        scores: 'sigmoid' or 'softmax'.
        temperature: T > 0.
    """
    student, teacher = student / temperature, teacher / temperature
    if scores == 'softmax':
        entropy = -teacher.softmax(-1) @ F.log_softmax(student, -1).mT
    else:
        entropy = -(teacher.sigmoid() @ F.logsigmoid(student).mT + (-teacher).sigmoid() @ F.logsigmoid(-student).mT)
    return temperature**2 * entropy


def box_costs(student: Tensor, teacher: Tensor, *, l1_weight: float = 5.0, giou_weight: float = 2.0) -> Tensor:
    """Return (K, Q): l1_weight * |b_s - b_t|_1 + giou_weight * (1 - GIoU) of each pair of queries.

    Args:
        student: centre x y, width and height (Q, 4).
        teacher: of the same kind (K, 4).
        l1_weight: of the L1 distance.
        giou_weight: of the overlap.
    """
    overlap = generalized_box_iou(*(box_convert(side, 'cxcywh', 'xyxy') for side in (teacher, student)))
    return l1_weight * torch.cdist(teacher, student, p=1) + giou_weight * (1 - overlap)


def assign(costs: Tensor) -> Tensor:
    """Return (..., K): for each row of costs (..., K, Q), K <= Q, a column of its own, of the least total cost."""
    flat = costs.detach().nan_to_num(WORST, WORST, -WORST).flatten(0, -3).cpu().numpy()
    columns = [torch.from_numpy(linear_sum_assignment(matrix)[1]) for matrix in flat]
    return torch.stack(columns).view(costs.shape[:-1]).to(costs.device)


def most_confident(weight: Tensor, count: int) -> Tensor:
    """Return the indices (..., K) of the highest ``count`` weights (..., Q)."""
    return weight.topk(count, dim=-1).indices


def take(values: Tensor, indices: Tensor) -> Tensor:
    """Return (..., K, C) from values (..., Q, C) and indices (..., K)."""
    return values.gather(-2, indices[..., None].expand(*indices.shape, values.shape[-1]))
