"""A block of ``WanLiteStudent``: self-attention, cross-attention to text, MLP, modulated by the timestep.

Same parameter names as diffusers' ``WanTransformerBlock``, so that a plan maps the teacher's tensors by name.
N image, L position, M token of text, D width.
"""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn import functional as F

from kdplugin.models.generators.wan_rope import rotate


def layer_norm(hidden: Tensor, eps: float, norm: nn.LayerNorm | None = None) -> Tensor:
    """Return the layer norm in float32, whatever the model's type."""
    weight, bias = (None, None) if norm is None else (norm.weight.float(), norm.bias.float())
    return F.layer_norm(hidden.float(), hidden.shape[-1:], weight, bias, eps)


class WanLiteAttention(nn.Module):
    """Attention with RMS norms of q and k over all heads together.

    Args:
        width: D.
        heads: must divide it.
        eps: of the norms.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.norm_q, self.norm_k = (nn.RMSNorm(width, eps=eps) for _ in range(2))

    def forward(
        self,
        hidden: Tensor,
        context: Tensor | None = None,
        angles: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            hidden: (N, L, D).
            context: text (N, M, D); None for self-attention.
            angles: see ``rotate``.
            mask: (N, 1, 1, M), true where a token counts.
        """
        source = hidden if context is None else context
        query = self._split(self.norm_q(self.to_q(hidden)))
        key = self._split(self.norm_k(self.to_k(source)))
        value = self._split(self.to_v(source))
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        seen = F.scaled_dot_product_attention(query, key, value.to(query.dtype), attn_mask=mask)
        return self.to_out[0](seen.transpose(1, 2).flatten(2))

    def _split(self, values: Tensor) -> Tensor:
        return values.unflatten(2, (self.heads, -1)).transpose(1, 2)


class WanLiteBlock(nn.Module):
    """One layer: what each part writes is scaled by a gate, what it reads is scaled and shifted, all by the timestep.

    Args:
        width: D.
        ffn: hidden units of the MLP.
        heads: of both attentions.
        eps: of the norms.
    """

    def __init__(self, width: int, ffn: int, heads: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.attn1, self.attn2 = (WanLiteAttention(width, heads, eps) for _ in range(2))
        self.norm2 = nn.LayerNorm(width, eps)
        self.ffn = FeedForward(width, inner_dim=ffn, activation_fn='gelu-approximate')
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(
        self,
        hidden: Tensor,
        context: Tensor,
        modulation: Tensor,
        angles: tuple[Tensor, Tensor],
        mask: Tensor | None = None,
    ) -> Tensor:
        """Return the next hidden states (N, L, D).

        Args:
            hidden: (N, L, D).
            context: (N, M, D).
            modulation: (N, 6, D), of the timestep.
            angles, mask: see ``WanLiteAttention``.
        """
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (self.scale_shift_table + modulation.float()).chunk(6, 1)
        kind = hidden.dtype
        read = layer_norm(hidden, self.eps) * (1 + scale) + shift
        hidden = (hidden.float() + self.attn1(read.to(kind), angles=angles).float() * gate).to(kind)
        read = layer_norm(hidden, self.eps, self.norm2)
        hidden = hidden + self.attn2(read.to(kind), context, mask=mask)
        read = layer_norm(hidden, self.eps) * (1 + scale_mlp) + shift_mlp
        return (hidden.float() + self.ffn(read.to(kind)).float() * gate_mlp).to(kind)


class WanLiteConditions(nn.Module):
    """What all blocks are told: the timestep and the text.

    Args:
        width: D.
        text: width of the text encoder.
        frequencies: of the timestep's sinusoid.
    """

    def __init__(self, width: int, text: int, frequencies: int) -> None:
        super().__init__()
        self.timesteps_proj = Timesteps(frequencies, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedder = TimestepEmbedding(frequencies, width)
        self.time_proj = nn.Linear(width, 6 * width)
        self.text_embedder = PixArtAlphaTextProjection(text, width, act_fn='gelu_tanh')

    def forward(self, timestep: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embedded timestep (N, D), the modulation (N, 6, D) and the text (N, M, D)."""
        waves = self.timesteps_proj(timestep).to(self.time_embedder.linear_1.weight.dtype)
        embedded = self.time_embedder(waves).to(text.dtype)
        return embedded, self.time_proj(F.silu(embedded)).unflatten(1, (6, -1)), self.text_embedder(text)
