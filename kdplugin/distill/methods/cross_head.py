"""Run the rest of a dense head of mmdet from features within its towers, and read what it predicts.

N image, A anchor or point of a cell, C class, H W position on the grid of a level, M box of all levels and images.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError
from kdplugin.module_paths import find_module

TOWERS = ('cls_convs', 'reg_convs')


def part_of_teacher(teacher: Teacher, path: str, like: Tensor) -> Any:
    """Return a module of the teacher on the device of a tensor: outputs from a cache come without the teacher running.

    Raises:
        PathError: there is no such module.
    """
    part = find_module(teacher.module, path, 'teacher')
    return part if next(part.parameters()).device == like.device else part.to(like.device)


class Given(nn.Module):
    """Ignores its input and puts out one of the given tensors after the other."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()
        self.left = list(tensors)

    def forward(self, features: Tensor) -> Tensor:
        return self.left.pop(0)


def check_head(head: nn.Module, convs: int, pair: str) -> None:
    """Raise ConfigError unless a head has two towers of more than ``convs`` convolutions, or as many, and sigmoids."""
    towers = [getattr(head, tower, None) for tower in TOWERS]
    plain = all(
        isinstance(tower, nn.ModuleList) and not any(isinstance(conv, nn.ModuleList) for conv in tower)
        for tower in towers
    )
    if not plain or not getattr(head, 'use_sigmoid_cls', True) or not hasattr(head, 'bbox_coder'):
        raise ConfigError(
            f'Expected a head with the towers cls_convs and reg_convs, sigmoid scores and a bbox_coder in pair '
            f'{pair!r} but got {type(head).__name__}. CrossKD knows those of GFL, ATSS, RetinaNet, FCOS and their kin.'
        )
    depth = min(len(tower) for tower in towers if tower is not None)
    if not 0 <= convs <= depth:
        raise ConfigError(
            f"Expected convs from 0 to {depth} in pair {pair!r} but got {convs}: the towers of the teacher's "
            f'{type(head).__name__} have {depth} convolutions. Give how many are left out there, also as teacher_convs.'
        )


def run_rest(head: nn.Module, convs: int, features: Sequence[Sequence[Tensor]]) -> Any:
    """Return what a head puts out if its towers, after their first ``convs`` convolutions, have given features.

    The head is left as it is: a shallow copy, of the same parameters, runs with other towers.

    Args:
        head: with the towers ``cls_convs`` and ``reg_convs``.
        convs: how many convolutions of each tower are left out.
        features: for each tower, the tensors (N, C, H, W) of all levels.
    """
    rest = copy.copy(head)
    rest._modules = dict(head._modules)
    for tower, tensors in zip(TOWERS, features, strict=True):
        convolutions = list(getattr(head, tower))[convs:]
        rest._modules[tower] = nn.ModuleList([Given(tensors), *convolutions])
    return rest(tuple(features[0]))


def flat_scores(head: Any, scores: Sequence[Tensor]) -> Tensor:
    """Return the class logits (M, C) of levels (N, A C, H, W)."""
    return torch.cat([_flat(level, head.cls_out_channels) for level in scores])


def predicts_distributions(head: Any) -> bool:
    """Tell whether a head's box predictions are distributions over distances (GFL)."""
    return hasattr(head, 'integral')


def flat_distributions(head: Any, boxes: Sequence[Tensor]) -> Tensor:
    """Return the box logits (M, 4 B) of levels (N, A 4 B, H, W)."""
    return torch.cat([_flat(level, 4 * (head.reg_max + 1)) for level in boxes])


def flat_boxes(head: Any, boxes: Sequence[Tensor]) -> Tensor:
    """Return the decoded boxes (M, 4) in pixels of levels (N, A 4, H, W)."""
    from mmdet.structures.bbox import get_box_tensor

    sizes = [tuple(level.shape[2:]) for level in boxes]
    priors = head.prior_generator.grid_priors(sizes, dtype=boxes[0].dtype, device=boxes[0].device)
    decoded = [
        get_box_tensor(head.bbox_coder.decode(get_box_tensor(prior).repeat(len(level), 1), _flat(level, 4)))
        for prior, level in zip(priors, boxes, strict=True)
    ]
    return torch.cat(decoded)


def flat_cells(cells: Sequence[Tensor | None], like: Sequence[Tensor], anchors: int) -> Tensor | None:
    """Return which boxes (M,) count of levels whose cells (N, H, W) count or do not; None if all do."""
    if all(mask is None for mask in cells):
        return None
    masks = [
        torch.ones_like(level[:, 0], dtype=torch.bool) if mask is None else mask
        for mask, level in zip(cells, like, strict=True)
    ]
    return torch.cat([mask.flatten().repeat_interleave(anchors) for mask in masks])


def _flat(level: Tensor, width: int) -> Tensor:
    """Return (N H W A, width) of (N, A width, H, W), in mmdet's order."""
    return level.permute(0, 2, 3, 1).reshape(-1, width)
