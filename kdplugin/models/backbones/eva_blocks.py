"""The transformer block of EVA-02's detection form: windows, attention, SwiGLU.

Shapes: N image, H W grid of tokens, C channel, S side of a window, A head, d width of a head, L token, F hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kdplugin.models.backbones.eva_rope import RotaryPositions

EPS = 1e-6
"""Of every LayerNorm."""


@dataclass(frozen=True)
class BlockSize:
    """Sizes of one block.

    Args:
        dim: C.
        heads: A, of which a pruned block has fewer than ``dim // head_dim``.
        head_dim: d.
        hidden: F.
        window: S, or 0 for attention over the whole grid.
    """

    dim: int
    heads: int
    head_dim: int
    hidden: int
    window: int


def to_windows(x: Tensor, side: int) -> Tensor:
    """Cut maps [N, H, W, C] into windows [N * h * w, S, S, C], row by row, padded with zeros on the right and below."""
    right, below = -x.shape[2] % side, -x.shape[1] % side
    if right or below:
        x = F.pad(x, (0, 0, 0, right, 0, below))
    x = x.unflatten(2, (-1, side)).unflatten(1, (-1, side))
    return x.transpose(2, 3).flatten(0, 2)


def from_windows(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Undo ``to_windows`` for maps of H and W tokens; the padding goes."""
    side = windows.shape[1]
    rows, columns = (-(-length // side) for length in grid)
    x = windows.unflatten(0, (-1, rows, columns)).transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : grid[0], : grid[1]]


class PatchEmbed(nn.Module):
    """Project patches of images to tokens.

    Args:
        patch_size: side of a patch in pixels.
        in_chans: channels of images.
        dim: C.
    """

    def __init__(self, patch_size: int, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens [N, H, W, C]."""
        return self.proj(images).permute(0, 2, 3, 1)


class QueriesAndKeys(nn.Module):
    """A place to tap: hands rotated queries and keys on as they are, each [N, A, L, d]."""

    def forward(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        return queries, keys


class EvaAttention(nn.Module):
    """Self-attention with rotary positions; biases of q and v, none of k; scale d^-0.5 with any number of heads.

    Its child ``qk`` puts out rotated queries and keys, of N images or, in a window block, of N * h * w windows.

    Args:
        size: of the block.
        rope: shared by all blocks of one kind.
        qkv_bias: with biases of q and v.
    """

    def __init__(self, size: BlockSize, rope: RotaryPositions | None, qkv_bias: bool = True) -> None:
        super().__init__()
        inner = size.heads * size.head_dim
        self.num_heads, self.head_dim = size.heads, size.head_dim
        self.scale = size.head_dim**-0.5
        self.q_bias = nn.Parameter(torch.zeros(inner)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(inner)) if qkv_bias else None
        self.q_proj = nn.Linear(size.dim, inner, bias=False)
        self.k_proj = nn.Linear(size.dim, inner, bias=False)
        self.v_proj = nn.Linear(size.dim, inner, bias=False)
        self.rope = rope
        self.qk = QueriesAndKeys()
        self.proj = nn.Linear(inner, size.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Let the tokens of each map [N, H, W, C] attend to each other."""
        grid = (x.shape[1], x.shape[2])
        x = x.flatten(1, 2)
        q = self._heads(self.q_proj(x), self.q_bias)
        k = self._heads(self.k_proj(x), None)
        v = self._heads(self.v_proj(x), self.v_bias)
        if self.rope is not None:
            q, k = self.rope(q, grid).type_as(v), self.rope(k, grid).type_as(v)
        q, k = self.qk(q, k)
        x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2)).unflatten(1, grid)

    def _heads(self, x: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            x = x + bias.to(x.dtype)
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)


class EvaSwiGLU(nn.Module):
    """w3(ffn_ln(SiLU(w1 x) * w2 x)).

    Args:
        dim: C.
        hidden: F.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, hidden)
        self.w2 = nn.Linear(dim, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=EPS)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., C] for [..., C]."""
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class EvaBlock(nn.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)), each branch dropped per image at a rate.

    Attention in windows pads after ``norm1``, and padded tokens take part with the bias of v for a value, as in the
    detection code of EVA-02.

    Args:
        size: of the block.
        rope: of its windows, or of the whole grid.
        qkv_bias: with biases of q and v.
        drop_path: rate.
        with_cp: compute the block again in backward instead of keeping its inner tensors.
    """

    def __init__(
        self, size: BlockSize, rope: RotaryPositions | None, qkv_bias: bool, drop_path: float, with_cp: bool
    ) -> None:
        super().__init__()
        self.window, self.with_cp = size.window, with_cp
        self.norm1 = nn.LayerNorm(size.dim, eps=EPS)
        self.attn = EvaAttention(size, rope, qkv_bias)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(size.dim, eps=EPS)
        self.mlp = EvaSwiGLU(size.dim, size.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps [N, H, W, C] for maps [N, H, W, C]."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window:
            return self.attn(x)
        return from_windows(self.attn(to_windows(x, self.window)), (x.shape[1], x.shape[2]))
