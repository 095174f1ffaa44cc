"""Detectors of queries: Hugging Face's Deformable and Conditional DETR beside mmdet's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mapping_pairs.base import Built, Pair, Rule, State, fuse, renamed
from mapping_pairs.cnn import HF_RESNET
from mapping_pairs.detection import mmdet_model
from mapping_pairs.detr import LAYERS

HEAD: tuple[Rule, ...] = (
    (r'^model\.backbone\.model', 'resnet'),
    *HF_RESNET,
    (r'^(conv1|bn1|layer)', r'backbone.\1'),
    (r'^model\.query_position_embeddings', 'query_embedding'),
)
FUSED = r'\b([qkv])_proj\.'


def hf_resnet(*stages: str) -> dict[str, Any]:
    from transformers import ResNetConfig

    config = ResNetConfig(out_features=list(stages))
    return dict(use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=config)


def deformable(tiny: bool) -> Built:
    """Return both with boxes that each layer refines by a head of its own."""
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

    depth = 2 if tiny else 6
    config = DeformableDetrConfig(
        **hf_resnet('stage2', 'stage3', 'stage4'),
        num_labels=80,
        encoder_layers=depth,
        decoder_layers=depth,
        with_box_refine=True,
    )
    changes = {'encoder.num_layers': depth, 'decoder.num_layers': depth, 'with_box_refine': True}
    target = mmdet_model('../../deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', **changes)
    return DeformableDetrForObjectDetection(config), target, torch.randn(1, 3, 64, 96)


def deformable_names(state: State) -> dict[str, Tensor]:
    """Return mmdet's tensors: its convolutions before a group norm have no bias."""
    rules = (
        *HEAD,
        (r'^model\.input_proj\.3\.0', 'neck.extra_convs.0.conv'),
        (r'^model\.input_proj\.3\.1', 'neck.extra_convs.0.gn'),
        (r'^model\.input_proj\.(\d)\.0', r'neck.convs.\1.conv'),
        (r'^model\.input_proj\.(\d)\.1', r'neck.convs.\1.gn'),
        (r'^model\.reference_points', 'reference_points_fc'),
        (r'^(model\.decoder\.)?class_embed', 'bbox_head.cls_branches'),
        (
            r'^(model\.decoder\.)?bbox_embed\.(\d)\.layers\.(\d)',
            lambda m: f'bbox_head.reg_branches.{m[2]}.{2 * int(m[3])}',
        ),
        (r'^model\.', ''),
    )
    own = {name: value for name, value in state.items() if not name.startswith('model.decoder.bbox_embed')}
    plain = {name.replace('encoder_attn.', 'cross_attn.'): value for name, value in own.items()}
    sampled = {name: v for name, v in plain.items() if 'cross_attn.' in name or 'model.encoder' in name}
    layers = [rule for rule in LAYERS if 'qkv' not in rule[0]]
    rest = renamed({name: v for name, v in plain.items() if name not in sampled}, *rules, *LAYERS)
    rest = {name: value for name, value in rest.items() if not (name.startswith('neck') and name.endswith('conv.bias'))}
    return {**fuse(rest, FUSED, 'in_proj_'), **renamed(sampled, *rules, *layers)}


def deformable_source(model: Any, images: Tensor) -> Tensor:
    for projection in model.model.input_proj:
        projection[0].bias.data.zero_()
    outputs = model(pixel_values=images)
    return torch.cat([outputs.logits.flatten(), outputs.pred_boxes.flatten()])


def forward_queries(model: Any, images: Tensor) -> Tensor:
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[2:])
    sample = DetDataSample(metainfo=dict(img_shape=size, batch_input_shape=size))
    classes, boxes = model.bbox_head(**model.forward_transformer(model.extract_feat(images), [sample]))
    return torch.cat([classes[-1].flatten(), boxes[-1].flatten()])


def conditional(tiny: bool) -> Built:
    from transformers import ConditionalDetrConfig, ConditionalDetrForObjectDetection

    depth = 2 if tiny else 6
    config = ConditionalDetrConfig(**hf_resnet('stage4'), num_labels=80, encoder_layers=depth, decoder_layers=depth)
    changes = {'encoder.num_layers': depth, 'decoder.num_layers': depth}
    target = mmdet_model('../../conditional_detr/conditional-detr_r50_8xb2-50e_coco.py', **changes)
    return ConditionalDetrForObjectDetection(config), target, torch.randn(1, 3, 64, 96)


def conditional_names(state: State) -> dict[str, Tensor]:
    rules = (
        *HEAD,
        (r'^model\.input_projection', 'neck.convs.0.conv'),
        (r'^class_labels_classifier', 'bbox_head.fc_cls'),
        (r'^bbox_predictor\.layers\.0', 'bbox_head.reg_ffn.layers.0.0'),
        (r'^bbox_predictor\.layers\.1', 'bbox_head.reg_ffn.layers.1'),
        (r'^bbox_predictor\.layers\.2', 'bbox_head.fc_reg'),
        (r'^model\.', ''),
    )
    decoder = (
        (r'encoder_attn_layer_norm', 'norms.1'),
        (r'self_attn_layer_norm', 'norms.0'),
        (r'final_layer_norm', 'norms.2'),
        (r'encoder_attn', 'cross_attn'),
        (r'_attn\.o_proj', '_attn.out_proj'),
        (r'([qk])_(content|pos_sine|pos)_proj', r'\1\2_proj'),
        (r'mlp\.fc1', 'ffn.layers.0.0'),
        (r'mlp\.fc2', 'ffn.layers.1'),
        (r'decoder\.layernorm', 'decoder.post_norm'),
    )
    inside = {name: value for name, value in state.items() if name.startswith('model.decoder')}
    rest = renamed({name: value for name, value in state.items() if name not in inside}, *rules, *LAYERS)
    return {**fuse(rest, FUSED, 'in_proj_'), **renamed(inside, *rules, *decoder)}


def hf_outputs(model: Any, images: Tensor) -> Tensor:
    outputs = model(pixel_values=images)
    return torch.cat([outputs.logits.flatten(), outputs.pred_boxes.flatten()])


NEEDS = ('mmdet', 'transformers')
PAIRS = (
    Pair('HF Deformable DETR -> mmdet', deformable, deformable_names, deformable_source, forward_queries, needs=NEEDS),
    Pair('HF Conditional DETR -> mmdet', conditional, conditional_names, hf_outputs, forward_queries, needs=NEEDS),
)
