"""Bring a student's tensor to the channels of the teacher's.

N image, C channel, H W position, L token.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from kdplugin.distill.layouts import Layout, Shape
from kdplugin.errors import TapError

MAP = Layout('NCHW')
Layouts = Sequence[tuple[Layout, Layout]]


class LevelAdapters(nn.ModuleList):
    """A 1x1 convolution (maps), or a linear layer (tokens, vectors), for each level whose channels differ."""

    def __str__(self) -> str:
        """Return for example '24->512, ='."""
        sizes = [[value.shape for value in layer.parameters()][:1] for layer in self]
        return ', '.join(f'{size[0][1]}->{size[0][0]}' if size else '=' for size in sizes)


def build_adapters(
    student: Sequence[Shape], teacher: Sequence[Shape], pair: str, layouts: Layouts | None = None
) -> LevelAdapters | None:
    """Size adapters from probed shapes; None where every level already agrees in channels.

    Args:
        student: shapes by level.
        teacher: shapes by level.
        pair: its name, for messages.
        layouts: of both sides by level; maps (N, C, H, W) where none are given.

    Raises:
        TapError: the tensors of a level cannot be laid on each other.
    """
    layers: list[nn.Module] = []
    layouts = [(MAP, MAP)] * len(student) if layouts is None else layouts
    for level, (ours, theirs, (one, other)) in enumerate(zip(student, teacher, layouts, strict=True)):
        check_fit(ours, theirs, one, other, f'pair {pair!r}, level {level}')
        channels = one.channels(ours), other.channels(theirs)
        layers.append(nn.Identity() if channels[0] == channels[1] else _layer(one, *channels))
    return None if all(isinstance(layer, nn.Identity) for layer in layers) else LevelAdapters(layers)


def _layer(layout: Layout, ours: int, theirs: int) -> nn.Module:
    if layout.axes == 'NCHW':
        return nn.Conv2d(ours, theirs, kernel_size=1)
    return nn.Conv1d(ours, theirs, kernel_size=1) if layout.axes == 'NCL' else nn.Linear(ours, theirs)


def check_fit(ours: Shape, theirs: Shape, one: Layout, other: Layout, where: str) -> None:
    """Raise TapError unless both are maps, both vectors, or both tokens of one number."""
    shapes = f'shapes {ours} and {theirs}'
    if min(len(ours), len(theirs)) < 2 or max(len(ours), len(theirs)) > 4:
        raise TapError(f'Expected maps, tokens or vectors at {where}, but got {shapes}. Tap other layers.')
    if {one.axes, other.axes} == {'NCHW'} and not len(ours) == len(theirs) == 4:
        raise TapError(
            f'Expected maps (N, C, H, W) at {where}, but got {shapes}. Tap layers that put out maps, or compare by '
            'loss=dict(...), which adapts tokens and vectors too.'
        )
    if one.is_map and other.is_map:
        return
    if one.is_map or other.is_map or ('NC' in (one.axes, other.axes) and one.axes != other.axes):
        raise TapError(
            f'Expected tensors that can be laid on each other at {where}, but got {shapes}: maps (N, C, H, W) or patch '
            'tokens (N, L, C) on both sides, or vectors (N, C) on both. Tap such layers; for a map with its channels '
            "last, or tokens that a class token or registers precede, write student_layout or teacher_layout='NHWC' or "
            "dict(axes='NLC', prefix=5)."
        )
    lengths = [shape[1] if layout.axes == 'NLC' else shape[-1] for shape, layout in ((ours, one), (theirs, other))]
    if one.axes != 'NC' and lengths[0] != lengths[1]:
        raise TapError(
            f'Expected equally many tokens at {where}, because they lie on no grid of the image, but got {shapes}. Tap '
            'layers with the same tokens.'
        )
