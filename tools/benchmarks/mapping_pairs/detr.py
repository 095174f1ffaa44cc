"""Encoder and decoder of DETR: Hugging Face's split attention and mmdet's fused one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, State, fuse, renamed


class HFTransformer(nn.Module):
    """The encoder and decoder of Hugging Face's DETR, on a flattened feature map, as in ``DetrModel``."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int) -> None:
        from transformers import DetrConfig
        from transformers.models.detr.modeling_detr import DetrDecoder, DetrEncoder

        super().__init__()
        sizes: dict[str, Any] = dict(d_model=width, num_queries=10)
        for side in ('encoder', 'decoder'):
            sizes |= {f'{side}_layers': depth, f'{side}_attention_heads': heads, f'{side}_ffn_dim': hidden}
        config = DetrConfig(**sizes)
        config._attn_implementation = 'eager'
        self.model = nn.Module()
        self.model.encoder = DetrEncoder(config)
        self.model.decoder = DetrDecoder(config)

    def forward(self, features: Tensor, positions: Tensor, queries: Tensor) -> Tensor:
        encoder, decoder = self.model.get_submodule('encoder'), self.model.get_submodule('decoder')
        memory = encoder(inputs_embeds=features, spatial_position_embeddings=positions).last_hidden_state
        return decoder(
            inputs_embeds=torch.zeros_like(queries),
            encoder_hidden_states=memory,
            spatial_position_embeddings=positions,
            object_queries_position_embeddings=queries,
        ).last_hidden_state


class MMDetTransformer(nn.Module):
    """mmdet's encoder and decoder, called as its ``DETR`` does."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int) -> None:
        from mmdet.models.layers import DetrTransformerDecoder, DetrTransformerEncoder

        super().__init__()

        def attention() -> dict[str, Any]:
            return dict(embed_dims=width, num_heads=heads, dropout=0.1, batch_first=True)

        ffn = dict(embed_dims=width, feedforward_channels=hidden, num_fcs=2, act_cfg=dict(type='ReLU', inplace=True))
        self.encoder = DetrTransformerEncoder(depth, dict(self_attn_cfg=attention(), ffn_cfg=ffn))
        layer = dict(self_attn_cfg=attention(), cross_attn_cfg=attention(), ffn_cfg=ffn)
        self.decoder = DetrTransformerDecoder(depth, layer, return_intermediate=False)

    def forward(self, features: Tensor, positions: Tensor, queries: Tensor) -> Tensor:
        memory = self.encoder(query=features, query_pos=positions, key_padding_mask=None)
        return self.decoder(
            query=torch.zeros_like(queries),
            key=memory,
            value=memory,
            query_pos=queries,
            key_pos=positions,
            key_padding_mask=None,
        )[0]


def build(tiny: bool) -> Built:
    sizes = (24, 3, 48, 2) if tiny else (256, 8, 2048, 6)
    inputs = torch.randn(1, 20, sizes[0]), torch.randn(1, 20, sizes[0]), torch.randn(1, 10, sizes[0])
    return HFTransformer(*sizes), MMDetTransformer(*sizes), inputs


def truth(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^model\.', ''),
        (r'encoder_attn_layer_norm', 'norms.1'),
        (r'self_attn_layer_norm', 'norms.0'),
        (r'^(encoder.*)final_layer_norm', r'\1norms.1'),
        (r'^(decoder.*)final_layer_norm', r'\1norms.2'),
        (r'encoder_attn', 'cross_attn'),
        (r'_attn\.o_proj', '_attn.attn.out_proj'),
        (r'_attn\.([qkv]_proj)', r'_attn.attn.\1'),
        (r'mlp\.fc1', 'ffn.layers.0.0'),
        (r'mlp\.fc2', 'ffn.layers.1'),
        (r'decoder\.layernorm', 'decoder.post_norm'),
    )
    return fuse(renamed(state, *rules), r'\b([qkv])_proj\.', 'in_proj_')


PAIRS = (Pair('HF DETR encoder-decoder -> mmdet', build, truth, needs=('mmdet', 'transformers')),)
