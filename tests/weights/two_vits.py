"""One small ViT under the names of two libraries: fused attention as in timm, split as in transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, CLASSES = 8, 2, 5
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of HEADS heads over [N, L, D]."""
    q, k, v = (one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class FusedAttention(nn.Module):
    """qkv in one layer; with ``bias='qv'`` k has none and q's and v's stand beside it (BEiT, EVA)."""

    def __init__(self, bias: str, width: int) -> None:
        super().__init__()
        if bias == 'qv':
            self.q_bias, self.v_bias = nn.Parameter(torch.zeros(width)), nn.Parameter(torch.zeros(width))
        self.qkv = nn.Linear(width, 3 * width, bias=bias == 'qkv')
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.qkv.bias
        if hasattr(self, 'q_bias'):
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return self.proj(attend(*F.linear(x, self.qkv.weight, bias).chunk(3, -1)))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class FusedBlock(nn.Module):
    def __init__(self, bias: str, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), FusedAttention(bias, width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Conv2d(3, width, 2, 2))

    def forward(self, image: Tensor) -> Tensor:
        return self.get_submodule(self.name)(image).flatten(2).transpose(1, 2)


class FusedVit(nn.Module):
    """timm's names. Images [N, 3, S, S], patches of 2, to [N, CLASSES]."""

    def __init__(self, depth: int = 3, bias: str = 'qkv', size: int = 8, width: int = WIDTH) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // 2) ** 2 + 1, width))
        self.patch_embed = PatchEmbed('proj', width)
        self.blocks = nn.Sequential(*(FusedBlock(bias, width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class SplitSelfAttention(nn.Module):
    def __init__(self, bias: str, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias='q' in bias)
        self.key = nn.Linear(width, width, bias='k' in bias)
        self.value = nn.Linear(width, width, bias='v' in bias)

    def forward(self, x: Tensor) -> Tensor:
        return attend(self.query(x), self.key(x), self.value(x))


class Dense(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


class SplitAttention(nn.Module):
    def __init__(self, bias: str, width: int) -> None:
        super().__init__()
        self.attention, self.output = SplitSelfAttention(bias, width), Dense(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.attention(x))


class SplitLayer(nn.Module):
    def __init__(self, bias: str, width: int) -> None:
        super().__init__()
        self.attention = SplitAttention(bias, width)
        self.intermediate, self.output = Dense(width, 3 * width), Dense(3 * width, width)
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.layernorm_before(x))
        return x + self.output(F.gelu(self.intermediate(self.layernorm_after(x))))


class Embeddings(nn.Module):
    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, (size // 2) ** 2 + 1, width))
        self.patch_embeddings = PatchEmbed('projection', width)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embeddings(image)
        return torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.position_embeddings


class SplitVit(nn.Module):
    """The names of transformers; the same function as ``FusedVit``."""

    def __init__(self, depth: int = 3, bias: str = 'qkv', size: int = 8, width: int = WIDTH) -> None:
        super().__init__()
        self.embeddings = Embeddings(size, width)
        self.encoder = nn.ModuleDict({'layer': nn.ModuleList(SplitLayer(bias, width) for _ in range(depth))})
        self.layernorm, self.classifier = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embeddings(image)
        for layer in self.encoder['layer']:
            x = layer(x)
        return self.classifier(self.layernorm(x)[:, 0])


def by_hand(split: SplitVit) -> dict[str, Tensor]:
    """Return the state of the ``FusedVit`` that computes the same, written out name by name."""
    old = split.state_dict()
    new = {
        'cls_token': old['embeddings.cls_token'],
        'pos_embed': old['embeddings.position_embeddings'],
        **_layer(old, 'embeddings.patch_embeddings.projection', 'patch_embed.proj'),
        **_layer(old, 'layernorm', 'norm'),
        **_layer(old, 'classifier', 'head'),
    }
    for index in range(len(split.encoder['layer'])):
        one, two = f'encoder.layer.{index}', f'blocks.{index}'
        for leaf in ('weight', 'bias'):
            parts = [old.get(f'{one}.attention.attention.{part}.{leaf}') for part in ('query', 'key', 'value')]
            if all(part is not None for part in parts):
                new[f'{two}.attn.qkv.{leaf}'] = torch.cat(parts)
            elif parts[0] is not None:
                new |= {f'{two}.attn.q_bias': parts[0], f'{two}.attn.v_bias': parts[2]}
        new |= _layer(old, f'{one}.attention.output.dense', f'{two}.attn.proj')
        new |= _layer(old, f'{one}.layernorm_before', f'{two}.norm1') | _layer(
            old, f'{one}.layernorm_after', f'{two}.norm2'
        )
        new |= _layer(old, f'{one}.intermediate.dense', f'{two}.mlp.fc1')
        new |= _layer(old, f'{one}.output.dense', f'{two}.mlp.fc2')
    return new


def _layer(state: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {f'{new}.{leaf}': state[f'{old}.{leaf}'] for leaf in ('weight', 'bias')}
