"""AT: distillation of where a feature map is active, whatever its channels.

N image, C channel, H W position on the grid of the feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kdplugin.errors import TapError
from kdplugin.losses.base import DistillationLoss, Ignored, precise, unit, valid_positions, weighted_mean
from kdplugin.registry import MODELS


def attention_transfer(
    student: Tensor, teacher: Tensor, *, labels: Tensor | None = None, ignore_index: Ignored = 255
) -> Tensor:
    """Return the mean over positions of (q_s - q_t)^2, q the mean square over channels scaled to length 1 per image.

    Paper: Zagoruyko and Komodakis, "Paying More Attention to Attention", arXiv 1612.03928. Formula: Q = mean over
    channels of A^2 (N, H, W), q = Q / |Q| over the valid positions of an image; mean over N, H, W of (q_s - q_t)^2 as
    in the authors' code. It does not change when a map is scaled or its channels are rotated, and both sides may have
    any number of channels. As q has length 1, the value falls as 1 / (H W) on larger maps: weigh it by hundreds.

    Args:
        student: features (N, C, H, W); its Q is resized bilinearly where the teacher's has another height or width.
        teacher: features (N, C', H', W'); no gradient flows into them.
        labels: class indices (N, H'', W''); positions labelled ``ignore_index`` do not count, nor do they enter q.
        ignore_index: the label that marks positions to leave out; None counts all, several may be given.

    Raises:
        TapError: not two maps of the same images.

    Example:
        >>> import torch
        >>> features = torch.randn(2, 8, 4, 6)
        >>> float(attention_transfer(torch.cat([features, -features], 1), 3 * features)) < 1e-9
        True
    """
    if student.dim() != 4 or teacher.dim() != 4 or len(student) != len(teacher):
        raise TapError(
            f'Expected maps (N, C, H, W) of the same images but got {tuple(student.shape)} and '
            f'{tuple(teacher.shape)}. Tap layers that put out maps.'
        )
    ours, theirs = (precise(side).square().mean(1) for side in (student, teacher.detach()))
    if ours.shape != theirs.shape:
        ours = F.interpolate(ours[:, None], size=theirs.shape[1:], mode='bilinear', align_corners=False)[:, 0]
    valid = valid_positions(labels, ignore_index, theirs.shape)
    if valid is not None:
        ours, theirs = (torch.where(valid, side, 0) for side in (ours, theirs))
    error = (unit(ours.flatten(1), 1) - unit(theirs.flatten(1), 1)).square()
    return weighted_mean(error, None if valid is None else valid.flatten(1))


@MODELS.register_module()
class AttentionTransferLoss(DistillationLoss):
    """``attention_transfer`` with its settings.

    Args:
        ignore_index: label of the positions that do not count; None counts all, several may be given.
    """

    compares = 'relations'

    def __init__(self, ignore_index: Ignored = 255) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, student: Tensor, teacher: Tensor, *, labels: Tensor | None = None) -> Tensor:
        return attention_transfer(student, teacher, labels=labels, ignore_index=self.ignore_index)
