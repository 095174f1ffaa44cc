"""timm's EVA-02 and the names of the EVA-ViT detection form (mmcv-1.x checkpoints with ``img_backbone.``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, State, renamed

LARGE = dict(width=1024, depth=24, heads=16, hidden=2730)
TINY = dict(width=48, depth=3, heads=3, hidden=128)


class Rope(nn.Module):
    """Axial rotary tables for an n x n grid: pairs side by side, theta 1e4, positions arange(n) / n * 16."""

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        angles = rope_angles(dim, grid)
        self.register_buffer('freqs_cos', angles.cos())
        self.register_buffer('freqs_sin', angles.sin())


def rope_angles(dim: int, grid: int) -> Tensor:
    """Return angles [grid * grid, dim], the first half of dim for rows, the second for columns."""
    bands = 10_000 ** -(torch.arange(0, dim // 2, 2) / (dim // 2))
    axis = (torch.arange(grid) / grid * 16)[:, None] * bands
    axis = axis.repeat_interleave(2, dim=-1)
    rows = axis[:, None].expand(grid, grid, -1)
    return torch.cat([rows, rows.transpose(0, 1)], dim=-1).reshape(grid * grid, dim)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    half = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * angles.cos() + half * angles.sin()


class Attention(nn.Module):
    """Heads with biases of q and v on the attention itself, none of k."""

    def __init__(self, width: int, heads: int, rope: Rope) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.rope = rope
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        def heads(value: Tensor) -> Tensor:
            return value.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        angles = rope_angles(x.shape[-1] // self.heads, round(x.shape[1] ** 0.5))
        q = rotate(heads(self.q_proj(x) + self.q_bias), angles)
        k = rotate(heads(self.k_proj(x)), angles)
        x = F.scaled_dot_product_attention(q, k, heads(self.v_proj(x) + self.v_bias))
        return self.proj(x.transpose(1, 2).flatten(-2))


class SwiGLU(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, hidden)
        self.w2 = nn.Linear(width, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=1e-6)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, rope: Rope) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, rope)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class EvaViT(nn.Module):
    """The detection form's tensors; its forward attends globally, so windows play no part."""

    def __init__(self, width: int, depth: int, heads: int, hidden: int, positions: int, grid: int = 40) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + positions, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, 16, 16)
        self.rope_win = Rope(width // heads, 16)
        self.rope_glb = Rope(width // heads, grid)
        ropes = [self.rope_glb if index % 3 == 2 else self.rope_win for index in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, hidden, rope) for rope in ropes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2) + self.pos_embed[:, 1:]  # type: ignore[operator]
        for block in self.blocks:
            x = block(x)
        return x


def timm_eva(tiny: bool, class_token: bool) -> Eva:
    size = TINY if tiny else LARGE
    settings: dict[str, Any] = dict(
        img_size=32 if tiny else 224,
        patch_size=16,
        embed_dim=size['width'],
        depth=size['depth'],
        num_heads=size['heads'],
        mlp_ratio=8 / 3,
        num_classes=0,
    )
    eva02 = dict(qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(16, 16))
    return Eva(**settings, **eva02, class_token=class_token)


def build(tiny: bool, class_token: bool) -> Built:
    source = timm_eva(tiny, class_token)
    target = EvaViT(**(TINY if tiny else LARGE), positions=4 if tiny else 196)
    return source, target, torch.randn(1, 3, 32 if tiny else 224, 32 if tiny else 224)


def before_the_norm(module: Any, images: Tensor) -> Tensor:
    """Return timm's tokens before its final norm, computed without the class token, as the detection form does."""
    skip = module.num_prefix_tokens
    x = module.patch_embed(images) + module.pos_embed[:, skip:]
    rope = module.rope.get_embed()
    for block in module.blocks:
        block.attn.num_prefix_tokens = 0
        x = block(x, rope=rope)
        block.attn.num_prefix_tokens = skip
    return x.flatten()


RULES = (
    (r'attn\.([qv])_proj\.bias', r'attn.\1_bias'),
    (r'mlp\.fc1_g', 'mlp.w1'),
    (r'mlp\.fc1_x', 'mlp.w2'),
    (r'mlp\.norm', 'mlp.ffn_ln'),
    (r'mlp\.fc2', 'mlp.w3'),
)


def truth(state: State) -> dict[str, Tensor]:
    """Return the detection form's tensors; the row of an absent class token is free."""
    kept = {name: value for name, value in state.items() if name != 'cls_token' and not name.startswith('fc_norm')}
    result = renamed(kept, *RULES)
    if 'cls_token' not in state:
        free = torch.full_like(result['pos_embed'][:, :1], torch.nan)
        result['pos_embed'] = torch.cat([free, result['pos_embed']], dim=1)
    return result


PAIRS = (
    Pair('timm EVA-02-L -> EVA-ViT', lambda tiny: build(tiny, True), truth, source_outputs=before_the_norm),
    Pair('timm EVA-02-L, no class token -> EVA-ViT', lambda tiny: build(tiny, False), truth, before_the_norm),
)
