"""Rotary positions of EVA-02: tables of a grid, computed once and never read from a file.

Shapes: N image or window, A head, L token, d width of a head, H W grid.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.errors import ConfigError

THETA = 1e4
CACHED_GRIDS = 16
"""Grids whose tables a module keeps besides its own; the oldest goes first."""


def rotary_tables(
    grid: tuple[int, int],
    head_dim: int,
    pretrained_length: int = 16,
    interpolated: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles of a grid's tokens, row by row, each [H * W, d].

    Source: EVA-02 (Fang et al., arXiv 2303.11331), detection code. The first half of d turns with the row, the second
    with the column; of a half's d/2 values, two neighbours share the angle t * 10000^(-2 i / (d/2)), with
    t = arange(n) / n * ``pretrained_length`` along an axis of n tokens.

    Args:
        grid: H and W.
        head_dim: d, a multiple of 4.
        pretrained_length: positions of an axis in pretraining.
        interpolated: spread those over the axis, whatever its length; otherwise t = arange(n).
        device: of the tables; 'meta' works.
        dtype: of the tables; angles are computed in float32.

    Example:
        >>> cosines, sines = rotary_tables((2, 3), 8)
        >>> cosines.shape, float(cosines[0].min())
        (torch.Size([6, 8]), 1.0)
    """
    half = head_dim // 2
    bands = THETA ** -(torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
    rows, columns = (_axis_angles(length, bands, pretrained_length if interpolated else length) for length in grid)
    angles = torch.cat([rows[:, None].expand(*grid, half), columns[None].expand(*grid, half)], dim=-1).flatten(0, 1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _axis_angles(length: int, bands: Tensor, span: int) -> Tensor:
    """Return the angles [n, d/2] of an axis whose n positions lie evenly in [0, span)."""
    positions = torch.arange(length, device=bands.device, dtype=torch.float32) / length * span
    return (positions[:, None] * bands).repeat_interleave(2, dim=-1)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of neighbouring values of x [..., L, d] by the angles of its token."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosines + turned * sines


class RotaryPositions(nn.Module):
    """Rotate queries and keys by the place of their tokens on a grid.

    The tables of one grid are buffers, under the names and shapes of EVA-02's detection checkpoints. A file's tables
    are those of its own image and window size: loading computes this module's anew and takes nothing from the file.

    Args:
        grid: H and W of the buffers; other grids get tables at the first forward that needs them.
        head_dim: d.
        pretrained_length: see ``rotary_tables``.
        interpolated: see ``rotary_tables``.

    Raises:
        ConfigError: the width of a head is no multiple of 4.
    """

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, grid: tuple[int, int], head_dim: int, pretrained_length: int, interpolated: bool) -> None:
        super().__init__()
        if head_dim % 4:
            raise ConfigError(
                f'Expected heads of a width that divides by 4, for two axes of pairs, but got {head_dim}. '
                'Correct head_dim, or embed_dim and num_heads.'
            )
        self.grid, self.head_dim = grid, head_dim
        self.pretrained_length, self.interpolated = pretrained_length, interpolated
        self._others: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}
        cosines, sines = self._compute(grid)
        self.register_buffer('freqs_cos', cosines)
        self.register_buffer('freqs_sin', sines)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return x [N, A, L, d] rotated, in the wider type of x and the tables."""
        return rotate(x, *self.tables(grid))

    def tables(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of a grid, each [H * W, d]."""
        if grid == self.grid:
            return self.freqs_cos, self.freqs_sin
        own = self.freqs_cos
        key = (*grid, own.device, own.dtype)
        if key not in self._others:
            if len(self._others) == CACHED_GRIDS:
                del self._others[next(iter(self._others))]
            with torch.inference_mode(False):  # a table made in inference could not serve training later
                self._others[key] = self._compute(grid, device=own.device, dtype=own.dtype)
        return self._others[key]

    def _compute(self, grid: tuple[int, int], **where: Any) -> tuple[Tensor, Tensor]:
        return rotary_tables(grid, self.head_dim, self.pretrained_length, self.interpolated, **where)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        given = state_dict.get(f'{prefix}freqs_cos', self.freqs_cos)
        device = given.device if self.freqs_cos.is_meta else self.freqs_cos.device
        tables = self._compute(self.grid, device=device, dtype=self.freqs_cos.dtype)
        computed = dict(zip((f'{prefix}freqs_cos', f'{prefix}freqs_sin'), tables, strict=True))
        super()._load_from_state_dict({**state_dict, **computed}, prefix, *args)
