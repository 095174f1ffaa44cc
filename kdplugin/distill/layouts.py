"""Where the channels of a tapped tensor are, and how its tokens lie on the image.

N image, C channel, H W position on a grid, L token, P token before the grid's (a class token, registers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.module_paths import did_you_mean

AXES = ('NCHW', 'NHWC', 'NLC', 'NCL', 'NC', 'windows')
PREFIXES = (0, 1, 2, 4, 5)
"""Tokens before those of a grid: class, distillation, registers. Other numbers are not believed: they are queries."""

Shape = tuple[int, ...]
Size = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """The axes of a tensor.

    Args:
        axes: 'NCHW' and 'NHWC' maps, 'NLC' tokens, 'NCL' sequences, 'NC' vectors, 'windows' of tokens, (N windows, L,
            C) or (N windows, H, W, C), cut row by row from a grid that was padded on the right and below.
        prefix: P of 'NLC'; None for tokens that lie on no grid, such as queries.
        stride: pixels between two tokens of 'windows'.
    """

    axes: str
    prefix: int | None = None
    stride: int | None = None

    @property
    def channels_last(self) -> bool:
        return self.axes in ('NHWC', 'NLC', 'windows')

    @property
    def is_map(self) -> bool:
        """Whether ``channels_first`` gives maps (N, C, H, W)."""
        return self.axes in ('NCHW', 'NHWC', 'windows') or (self.axes == 'NLC' and self.prefix is not None)

    def channels(self, shape: Shape) -> int:
        return shape[-1] if self.channels_last else shape[1]

    def channels_first(self, tensor: Tensor, image_size: Size | None) -> Tensor:
        """Return (N, C, H, W) for what lies on a grid, (N, C, L) for other tokens, (N, C) for vectors.

        Tokens before the grid's are left out.

        Args:
            tensor: in this layout.
            image_size: (H, W) of the batch, whose sides tell the grid's.

        Raises:
            TapError: the tokens fit on no grid of this image.
        """
        if self.axes == 'NHWC':
            return tensor.permute(0, 3, 1, 2)
        if self.axes == 'windows':
            return self._join(tensor, image_size)
        if self.axes != 'NLC':
            return tensor
        if self.prefix is None:
            return tensor.transpose(1, 2)
        height, width = grid_of(tensor.shape[1] - self.prefix, image_size)
        return tensor[:, self.prefix :].transpose(1, 2).unflatten(2, (height, width))

    def _join(self, tensor: Tensor, image_size: Size | None) -> Tensor:
        if image_size is None or self.stride is None:
            raise TapError('Expected the size of the images and a stride to join windows but got none. Give a stride.')
        windows = tensor.unflatten(1, (math.isqrt(tensor.shape[1]), -1)) if tensor.dim() == 3 else tensor
        side, width = windows.shape[1:3]
        grid = [-(-length // self.stride) for length in image_size]
        rows, columns = -(-grid[0] // side), -(-grid[1] // width)
        if len(windows) % (rows * columns):
            raise TapError(
                f'Expected {rows} x {columns} windows for each image of {image_size} pixels but got {len(windows)} '
                f'windows of {side} x {width} tokens. Correct the stride of the layout.'
            )
        whole = windows.unflatten(0, (-1, rows, columns)).permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return whole[:, :, : grid[0], : grid[1]]


def grid_of(tokens: int, image_size: Size | None) -> Size:
    """Return the (H, W) of a grid of tokens: of all with so many, the one whose sides are most like the image's.

    Raises:
        TapError: there are no tokens, or nobody knows the image.

    Example:
        >>> grid_of(2048, (512, 1024))
        (32, 64)
    """
    if image_size is None or tokens < 1:
        raise TapError(
            f'Expected tokens on a grid of the image but got {tokens} for an image of {image_size} pixels. Tap patch '
            'tokens, or maps.'
        )
    shape = math.log(image_size[0] / image_size[1])
    heights = [height for height in range(1, tokens + 1) if tokens % height == 0]
    height = min(heights, key=lambda height: abs(math.log(height * height / tokens) - shape))
    return height, tokens // height


def prefix_of(tokens: int, image_size: Size | None) -> int | None:
    """Return how many tokens come before those of a grid of square patches that divide the image, None if none fits.

    Example:
        >>> prefix_of(257, (256, 256)), prefix_of(100, (256, 256))
        (1, None)
    """
    if image_size is None:
        return None
    for prefix in PREFIXES:
        if tokens > prefix:
            height, width = grid_of(tokens - prefix, image_size)
            whole = image_size[0] % height == 0 == image_size[1] % width
            if whole and image_size[0] // height == image_size[1] // width:
                return prefix
    return None


def layout_of(shape: Shape, image_size: Size | None, given: Layout | None, channels_second: bool) -> Layout:
    """Return the layout of a probed tensor.

    Args:
        shape: of the tensor for one image.
        image_size: (H, W) of this image.
        given: what the config says; tokens before the grid's are counted if it doesn't.
        channels_second: three axes are (N, C, L), as logits are, and not tokens (N, L, C).

    Raises:
        TapError: the config says what cannot be.
    """
    if given is None:
        axes = {4: 'NCHW', 3: 'NCL' if channels_second else 'NLC', 2: 'NC'}.get(len(shape), 'NC')
        given = Layout(axes)
    elif len(shape) not in ((3, 4) if given.axes == 'windows' else (len(given.axes),)):
        raise TapError(
            f'Expected a tensor of axes {given.axes!r} but got shape {shape}. Correct the layout of the tap.'
        )
    if given.axes == 'NLC' and given.prefix is None and shape[0] == 1:
        return Layout('NLC', prefix_of(shape[1], image_size))
    return given


def parse_layout(value: Any, owner: str) -> Layout | None:
    """Read ``'NHWC'`` or ``dict(axes='NLC', prefix=5)``; None stays None.

    Raises:
        ConfigError: unknown axes or keys, or windows without a stride.
    """
    if value is None:
        return None
    settings = value if isinstance(value, Mapping) else {'axes': value}
    keys = [field.name for field in fields(Layout)]
    for key in settings:
        if key not in keys:
            raise ConfigError(f'Expected keys {keys} in {owner} but got {key!r}.{did_you_mean(key, keys)}')
    if settings.get('axes') not in AXES:
        wrong = str(settings.get('axes'))
        raise ConfigError(f'Expected axes of {list(AXES)} in {owner} but got {wrong!r}.{did_you_mean(wrong, AXES)}')
    if settings['axes'] == 'windows' and not settings.get('stride'):
        raise ConfigError(f"Expected a stride of {owner} but got none. Write dict(axes='windows', stride=16).")
    return Layout(**settings)


def match_size(student: Tensor, teacher: Tensor) -> Tensor:
    """Resize a student map (N, C, H, W) bilinearly to the height and width of the teacher's."""
    if student.dim() == 4 and student.shape[2:] != teacher.shape[2:]:
        return F.interpolate(student, size=teacher.shape[2:], mode='bilinear', align_corners=False)
    return student
