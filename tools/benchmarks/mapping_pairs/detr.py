"""Encoder and decoder of DETR: Hugging Face's split attention and mmdet's fused one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, Rule, State, fuse, renamed
from mapping_pairs.cnn import HF_RESNET
from mapping_pairs.detection import class_rows, mmdet_model


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


LAYERS: tuple[Rule, ...] = (
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


def truth(state: State) -> dict[str, Tensor]:
    return fuse(renamed(state, (r'^model\.', ''), *LAYERS), r'\b([qkv])_proj\.', 'in_proj_')


def whole(tiny: bool) -> Built:
    """Return both detectors with a ResNet-50, Hugging Face's with 92 rows: COCO's numbers and "no object" at 91."""
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    backbone = ResNetConfig(out_features=['stage4'])
    config = DetrConfig(
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone, num_labels=91
    )
    target = mmdet_model('../../detr/detr_r50_8xb2-150e_coco.py')
    return DetrForObjectDetection(config), target, torch.randn(1, 3, 64, 96) if tiny else torch.randn(1, 3, 128, 160)


def whole_names(state: State) -> dict[str, Tensor]:
    """Return mmdet's tensors, with its 80 classes and "no object" last."""
    rules = (
        (r'^model\.backbone\.model', 'resnet'),
        *HF_RESNET,
        (r'^(conv1|bn1|layer)', r'backbone.\1'),
        (r'^model\.query_position_embeddings', 'query_embedding'),
        (r'^model\.input_projection', 'neck.convs.0.conv'),
        (r'^class_labels_classifier', 'bbox_head.fc_cls'),
        (r'^bbox_predictor\.layers\.0', 'bbox_head.reg_ffn.layers.0.0'),
        (r'^bbox_predictor\.layers\.1', 'bbox_head.reg_ffn.layers.1'),
        (r'^bbox_predictor\.layers\.2', 'bbox_head.fc_reg'),
        (r'^model\.', ''),
    )
    result = fuse(renamed(state, *rules, *LAYERS), r'\b([qkv])_proj\.', 'in_proj_')
    rows = [*class_rows(91), 91]
    return {name: value[rows] if 'fc_cls' in name else value for name, value in result.items()}


def whole_source(model: Any, images: Tensor) -> Tensor:
    outputs = model(pixel_values=images)
    return torch.cat([outputs.logits[..., [*class_rows(91), 91]].flatten(), outputs.pred_boxes.flatten()])


def whole_target(model: Any, images: Tensor) -> Tensor:
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    sample = DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=size))
    queries = model.forward_transformer(model.extract_feat(images), [sample])
    classes, boxes = model.bbox_head(**queries)
    return torch.cat([classes[-1].flatten(), boxes[-1].flatten()])


NEEDS = ('mmdet', 'transformers')
PAIRS = (
    Pair('HF DETR encoder-decoder -> mmdet', build, truth, needs=NEEDS),
    Pair(
        'HF DETR R50 -> mmdet',
        whole,
        whole_names,
        whole_source,
        whole_target,
        refusable=r'bbox_head\.fc_cls\.(weight|bias)',
        needs=NEEDS,
    ),
)
