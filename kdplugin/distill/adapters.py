"""Bring a student's tensor to the shape of the teacher's.

N image, C channel, H W position.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdplugin.errors import TapError


class LevelAdapters(nn.ModuleList):
    """One 1x1 convolution for each level of a tap whose channels differ, identity for the others."""

    def __str__(self) -> str:
        """Return for example '24->512, ='."""
        return ', '.join(
            f'{layer.in_channels}->{layer.out_channels}' if isinstance(layer, nn.Conv2d) else '=' for layer in self
        )


def build_adapters(
    student: Sequence[tuple[int, ...]], teacher: Sequence[tuple[int, ...]], pair: str
) -> LevelAdapters | None:
    """Size adapters from probed shapes; None where every level already agrees in channels.

    Raises:
        TapError: a level is not a map (N, C, H, W) although the shapes differ.
    """
    layers: list[nn.Module] = []
    for level, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        if len(ours) == len(theirs) > 1 and ours[1] == theirs[1]:
            layers.append(nn.Identity())
        elif len(ours) == len(theirs) == 4:
            layers.append(nn.Conv2d(ours[1], theirs[1], kernel_size=1))
        else:
            raise TapError(
                f'Expected maps (N, C, H, W) at pair {pair!r}, level {level}, but got shapes {ours} and {theirs}. '
                'Tap layers that put out maps, or layers of equal shape.'
            )
    return LevelAdapters(layers) if any(isinstance(layer, nn.Conv2d) for layer in layers) else None


def match_size(student: Tensor, teacher: Tensor) -> Tensor:
    """Resize a student map bilinearly to the height and width of the teacher's."""
    if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
        return F.interpolate(student, size=teacher.shape[2:], mode='bilinear', align_corners=False)
    return student
