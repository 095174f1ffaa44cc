"""Small networks whose widths can be chosen, and plans between two of them by equal names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdplugin.weights.apply import Applied, apply_plan
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.projection.axis_groups import with_projection

State = Mapping[str, Tensor]


def same_names(source: State, target: State) -> ProjectionPlan:
    """Return the plan that fills each tensor from the one of the same name."""
    entries = [
        Entry(name, tuple(value.shape), 'exact' if source[name].shape == value.shape else 'projected', (Piece(name),))
        if name in source
        else Entry(name, tuple(value.shape), 'random', reason='absent')
        for name, value in target.items()
    ]
    return ProjectionPlan('teacher', 'student', tuple(entries))


def projected(source: nn.Module, target: nn.Module, **options: Any) -> tuple[ProjectionPlan, Applied]:
    """Fill the target in place, strictly, from the source by equal names."""
    plan = with_projection(same_names(source.state_dict(), target.state_dict()), source.state_dict(), **options)
    applied = apply_plan(plan, source.state_dict())
    target.load_state_dict(applied.tensors)
    return plan, applied


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor values that matter: gains around 1, variances above 0, no zeros."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        drawn = torch.randn(value.shape, generator=generator)
        if name.endswith(('running_var', 'gamma', 'layer_scale')) or (name.endswith('weight') and value.ndim == 1):
            value.copy_(drawn.abs().clamp(0.2, 2))
        elif value.ndim < 2:
            value.copy_(drawn * 0.3)
        else:
            value.copy_(drawn / max(value[0].numel(), 1) ** 0.5)
    return model.eval()


class Attention(nn.Module):
    """Attention whose inner width is heads * size, fused or split, with rotary pairs or norms of q and k on request."""

    def __init__(self, width: int, heads: int, size: int, fused: bool, qk_norm: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        if fused:
            self.qkv = nn.Linear(width, 3 * heads * size)
        else:
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, heads * size) for _ in range(3))
        if qk_norm:
            self.q_norm, self.k_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.proj = nn.Linear(heads * size, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1) if self.fused else (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(1, 2) for one in (q, k, v))
        if hasattr(self, 'q_norm'):
            q, k = self.q_norm(q), self.k_norm(k)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """GELU MLP, or a gated one with a norm inside as EVA's."""

    def __init__(self, width: int, hidden: int, gated: bool) -> None:
        super().__init__()
        self.gated = gated
        self.w1 = nn.Linear(width, hidden)
        if gated:
            self.w2, self.ffn_ln = nn.Linear(width, hidden), nn.LayerNorm(hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)) if self.gated else F.gelu(self.w1(x))
        return self.w3(hidden)


class Scale(nn.Module):
    """LayerScale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int, size: int, hidden: int, **kind: Any) -> None:
        super().__init__()
        norm = nn.RMSNorm if kind['norm'] == 'rms' else nn.LayerNorm
        self.norm1 = norm(width)
        self.attn = Attention(width, heads, size, kind['fused'], kind['qk_norm'])
        self.ls1 = Scale(width) if kind['scale'] else nn.Identity()
        self.norm2 = norm(width)
        self.mlp = Mlp(width, hidden, kind['gated'])
        self.ls2 = Scale(width) if kind['scale'] else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Vit(nn.Module):
    """Tokens [N, L, 6] through a pre-norm transformer to 5 scores."""

    KIND = dict(norm='layer', fused=True, gated=False, scale=False, qk_norm=False)

    def __init__(
        self, width: int = 32, heads: int = 4, size: int = 8, hidden: int = 48, depth: int = 2, **kind: Any
    ) -> None:
        super().__init__()
        kind = {**self.KIND, **kind}
        self.embed = nn.Linear(6, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, 7, width))
        self.blocks = nn.Sequential(*(Block(width, heads, size, hidden, **kind) for _ in range(depth)))
        self.norm = nn.RMSNorm(width) if kind['norm'] == 'rms' else nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x) + self.pos_embed))).mean(1)


class PostNorm(nn.Module):
    """torch's own encoder layers, which normalise what they write."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(6, width)
        layers = [nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True) for _ in range(2)]
        self.layers = nn.ModuleList(layers)
        self.box = nn.ModuleDict({'layers': nn.ModuleList([nn.Linear(width, width), nn.Linear(width, 4)])})

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_proj(x)
        for layer in self.layers:
            x = layer(x)
        first, second = self.box['layers']
        return second(F.relu(first(x)))


class Modulated(nn.Module):
    """A DiT-like block pair: shift, scale and gate come from a condition, and attention looks at another stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Linear(6, width)
        self.text_embedding = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        self.time_embedding = nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.blocks = nn.ModuleList([ModulatedBlock(width, heads) for _ in range(2)])
        self.proj_out = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        text, time = x.mean(1, keepdim=True)[..., :3] + x[..., :3], x[:, 0, :4]
        condition = self.time_projection(self.time_embedding(time)).unflatten(-1, (3, -1))
        x, context = self.patch_embedding(x), self.text_embedding(text)
        for block in self.blocks:
            x = block(x, condition, context)
        return self.proj_out(F.layer_norm(x, x.shape[-1:]))


class ModulatedBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 3, width))
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn = nn.ModuleDict({name: nn.Linear(width, width) for name in 'qkvo'})
        self.ffn = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.heads = heads

    def forward(self, x: Tensor, condition: Tensor, context: Tensor) -> Tensor:
        shift, scale, gate = (self.modulation + condition).unbind(1)
        inputs = {'q': self.norm3(x), 'k': context, 'v': context}
        q, k, v = (self.cross_attn[n](y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for n, y in inputs.items())
        x = x + self.cross_attn['o'](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        modulated = F.layer_norm(x, x.shape[-1:]) * (1 + scale[:, None]) + shift[:, None]
        return x + self.ffn(modulated) * gate[:, None]
