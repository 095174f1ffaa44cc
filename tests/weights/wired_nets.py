"""Small networks whose axes share more than widths: grouped queries, shortened keys, concatenation, uneven channels."""

from __future__ import annotations

import torch
from small_nets import Mlp
from torch import Tensor, nn
from torch.nn import functional as F


class GroupedAttention(nn.Module):
    """Attention in which several query heads of 8 share a key head, as in Llama."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.shared = shared
        self.q_proj = nn.Linear(width, 8 * heads, bias=False)
        self.k_proj, self.v_proj = (nn.Linear(width, 8 * heads // shared, bias=False) for _ in range(2))
        self.o_proj = nn.Linear(8 * heads, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (one(x).unflatten(-1, (-1, 8)).transpose(1, 2) for one in (self.q_proj, self.k_proj, self.v_proj))
        k, v = (one.repeat_interleave(self.shared, 1) for one in (k, v))
        return self.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GroupedBlock(nn.Module):
    """A block of Llama's kind."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.self_attn = GroupedAttention(width, heads, shared)
        self.mlp = Mlp(width, 2 * width, False)
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Grouped(nn.Module):
    """Tokens [N, L, 6] through blocks of grouped queries to 5 scores."""

    def __init__(self, width: int, heads: int, shared: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.layers = nn.Sequential(*(GroupedBlock(width, heads, shared) for _ in range(2)))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.embed(x)))).mean(1)


class Shortened(nn.Module):
    """Attention to a map that a convolution and a norm make smaller, as in SegFormer and PVT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(width, width) for _ in range(4))
        self.sr, self.norm = nn.Conv2d(width, width, 2, 2), nn.LayerNorm(width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        short = self.norm(self.sr(x.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2))
        q, k, v = self.q_proj(x), self.k_proj(short), self.v_proj(short)
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (q, k, v))
        return self.o_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ShortenedBlock(nn.Module):
    """A block of SegFormer's kind."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Shortened(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, 2 * width, False)

    def forward(self, x: Tensor) -> Tensor:
        size, x = tuple(x.shape[-2:]), x.flatten(2).transpose(1, 2)
        x = x + self.attn(self.norm1(x), size)
        return (x + self.mlp(self.norm2(x))).transpose(1, 2).unflatten(2, size)


class Fusing(nn.Module):
    """Images [N, 3, H, W] through two stages, whose projections are concatenated, to 5 scores."""

    def __init__(self, times: int) -> None:
        super().__init__()
        widths = (16 * times, 32 * times)
        self.patch_embed1, self.patch_embed2 = nn.Conv2d(3, widths[0], 4, 4), nn.Conv2d(*widths, 2, 2)
        self.block1, self.block2 = (nn.Sequential(ShortenedBlock(width, width // 8)) for width in widths)
        self.linear_c = nn.ModuleList(nn.Conv2d(width, 24 * times, 1) for width in widths)
        self.linear_fuse, self.head = nn.Conv2d(48 * times, 20 * times, 1), nn.Conv2d(20 * times, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.block1(self.patch_embed1(x))
        two = self.block2(self.patch_embed2(one))
        both = [self.linear_c[0](one), F.interpolate(self.linear_c[1](two), one.shape[-2:])]
        return self.head(self.linear_fuse(torch.cat(both, 1)).relu()).mean((2, 3))


class Inverted(nn.Sequential):
    """An inverted residual whose names do not sort as they run."""

    def __init__(self, width: int, hidden: int, new: int) -> None:
        super().__init__()
        self.add_module('expand_conv', nn.Conv2d(width, hidden, 1))
        self.add_module('depthwise_conv', nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))
        self.add_module('linear_conv', nn.Conv2d(hidden, new, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear_conv(self.depthwise_conv(self.expand_conv(x).relu()).relu())
        return x + out if x.shape == out.shape else out


class Uneven(nn.Module):
    """MobileNet's shape, with channels of one width that go to two others: 24 to 48 and to 32."""

    def __init__(self, times: int) -> None:
        super().__init__()
        a, b, c, d = ((8, 24, 12, 24), (16, 48, 24, 32))[times - 1]
        self.conv1 = nn.Conv2d(3, a, 3, 2)
        self.layer1 = nn.Sequential(Inverted(a, b, c), Inverted(c, d, c))
        self.layer2 = nn.Sequential(Inverted(c, b, d), Inverted(d, b, d))
        self.conv2, self.fc = nn.Conv2d(d, 40 * times, 1), nn.Linear(40 * times, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.layer2(self.layer1(self.conv1(x).relu()))).relu().mean((2, 3)))
