"""A small vision transformer with the tensor names of EVA-02's detection form, for tests without mm* and timm."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM, HEADS, HEAD_DIM, HIDDEN, DEPTH = 24, 4, 6, 20, 3
TOKENS = 9


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.num_heads, width = heads, heads * HEAD_DIM
        for name in 'qkv':
            self.add_module(f'{name}_proj', nn.Linear(DIM, width, bias=False))
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q_proj(x) + self.q_bias, self.k_proj(x), self.v_proj(x) + self.v_bias
        q, k, v = (part.unflatten(-1, (self.num_heads, HEAD_DIM)).transpose(1, 2) for part in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, scale=HEAD_DIM**-0.5)
        return self.proj(x.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(DIM, hidden), nn.Linear(DIM, hidden)
        self.ffn_ln = nn.LayerNorm(hidden, eps=1e-6)
        self.w3 = nn.Linear(hidden, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))


class Block(nn.Module):
    def __init__(self, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(DIM), Attention(heads)
        self.norm2, self.mlp = nn.LayerNorm(DIM), SwiGLU(hidden)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class StandIn(nn.Module):
    """Tokens [N, L, C] in and out.

    Args:
        heads, hidden: of each block.
    """

    def __init__(self, heads: Sequence[int] = (HEADS,) * DEPTH, hidden: Sequence[int] = (HIDDEN,) * DEPTH) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, TOKENS, DIM))
        self.blocks = nn.ModuleList(Block(*sizes) for sizes in zip(heads, hidden, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


class Detector(nn.Module):
    """A backbone and a head, as names in a file have them."""

    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone, self.head = backbone or StandIn(), nn.Linear(DIM, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every tensor random values, also those that begin as zeros or ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            scale = value.shape[-1] ** -0.5 if value.ndim > 1 else 0.3
            value.copy_(noise * scale + (1.0 if 'norm' in name or name.endswith('ffn_ln.weight') else 0.0))
    return model.eval()


def tokens(images: int = 4, seed: int = 1) -> Tensor:
    """Return inputs [N, L, C]."""
    return torch.randn(images, TOKENS, DIM, generator=torch.Generator().manual_seed(seed))


def trained() -> StandIn:
    """Return a model after a few steps on a task: put out each token's neighbour, doubled."""
    model = StandIn()
    model.load_state_dict(_trained_weights())
    return model.eval()


@functools.cache
@torch.enable_grad()
def _trained_weights(steps: int = 12, rate: float = 0.1) -> dict[str, Tensor]:
    model = stirred(StandIn())
    for step in range(steps):
        x = tokens(8, seed=100 + step)
        loss = F.mse_loss(model(x), 2 * x.roll(1, 1))
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for value, gradient in zip(model.parameters(), gradients, strict=True):
                value -= rate * gradient
    return model.state_dict()
