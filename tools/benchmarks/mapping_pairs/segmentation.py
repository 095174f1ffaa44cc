"""Segmentation models: torchvision's FCN and backbones and Hugging Face's SegFormer beside mmseg's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import mobilenet_v2
from torchvision.models.segmentation import fcn_resnet50

from mapping_pairs.base import Built, Pair, State, fuse, renamed

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'configs/_base_/models/fcn_r50_torchvision.py'


def fcn(tiny: bool) -> Built:
    """Return torchvision's FCN with its auxiliary head and mmseg's as the repository configures it."""
    from mmengine.config import Config
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    source = fcn_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    return source, MODELS.build(Config.fromfile(CONFIG).model), torch.randn(1, 3, *((32, 40) if tiny else (96, 128)))


def fcn_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^classifier', 'decode_head'),
        (r'^aux_classifier', 'auxiliary_head'),
        (r'head\.0\.', 'head.convs.0.conv.'),
        (r'head\.1\.', 'head.convs.0.bn.'),
        (r'head\.4\.', 'head.conv_seg.'),
    )
    return renamed(state, *rules)


def fcn_source(model: nn.Module, images: Tensor) -> Tensor:
    outputs = model(images)
    return torch.cat([outputs['out'].flatten(), outputs['aux'].flatten()])


def fcn_target(model: Any, images: Tensor) -> Tensor:
    levels = model.backbone(images)
    logits = [head(levels) for head in (model.decode_head, model.auxiliary_head)]
    size = images.shape[2:]
    return torch.cat([F.interpolate(part, size, mode='bilinear', align_corners=False).flatten() for part in logits])


def mobilenet(tiny: bool) -> Built:
    from mmseg.models.backbones import MobileNetV2

    # mmseg's has no last 1 x 1 convolution
    return mobilenet_v2(weights=None), MobileNetV2(out_indices=(6,)), torch.randn(1, 3, 64, 64)


PARTS = {
    2: {'0.0': '0.conv', '0.1': '0.bn', '1': '1.conv', '2': '1.bn'},
    3: {'0.0': '0.conv', '0.1': '0.bn', '1.0': '1.conv', '1.1': '1.bn', '2': '2.conv', '3': '2.bn'},
}
"""mmseg's places inside an inverted residual block, by how many convolutions it has."""


def mobilenet_names(state: State) -> dict[str, Tensor]:
    depths = [1, 2, 3, 4, 3, 3, 1]
    places = [f'layer{stage + 1}.{index}' for stage, depth in enumerate(depths) for index in range(depth)]
    result = {}
    for name, value in state.items():
        block = re.match(r'features\.(\d+)\.conv\.(\d(?:\.\d)?)\.(\w+)$', name)
        if block:
            parts = PARTS[2 if block[1] == '1' else 3]
            result[f'{places[int(block[1]) - 1]}.conv.{parts[block[2]]}.{block[3]}'] = value
        elif name.startswith('features.0.'):
            result[name.replace('features.0.0', 'conv1.conv').replace('features.0.1', 'conv1.bn')] = value
    return result


def before_the_last(model: Any, images: Tensor) -> Tensor:
    return model.features[:18](images).flatten()


def segformer(tiny: bool) -> Built:
    from mmseg.models.backbones import MixVisionTransformer
    from transformers import SegformerConfig, SegformerModel

    target = MixVisionTransformer(
        embed_dims=32, num_heads=[1, 2, 5, 8], num_layers=[2, 2, 2, 2], norm_cfg=dict(type='LN', eps=1e-5)
    )
    return SegformerModel(SegformerConfig()), target, torch.randn(1, 3, 64, 64)


def segformer_names(state: State) -> dict[str, Tensor]:
    """Return mmseg's tensors: fused attention, and 1 x 1 convolutions for the linear layers of the feed-forward."""
    rules = (
        (r'^stages\.(\d)\.patch_embeddings\.proj', r'layers.\1.0.projection'),
        (r'^stages\.(\d)\.patch_embeddings\.layer_norm', r'layers.\1.0.norm'),
        (r'^stages\.(\d)\.layer_norm', r'layers.\1.2'),
        (r'^stages\.(\d)\.blocks', r'layers.\1.1'),
        (r'attention\.sequence_reduction\.sequence_reduction', 'attn.sr'),
        (r'attention\.sequence_reduction\.layer_norm', 'attn.norm'),
        (r'attention\.o_proj', 'attn.attn.out_proj'),
        (r'attention\.([qkv]_proj)', r'attn.attn.\1'),
        (r'layernorm_before', 'norm1'),
        (r'layernorm_after', 'norm2'),
        (r'mlp\.fc1', 'ffn.layers.0'),
        (r'mlp\.dwconv\.dwconv', 'ffn.layers.1'),
        (r'mlp\.fc2', 'ffn.layers.4'),
    )
    result = fuse(renamed(state, *rules), r'\b([qkv])_proj\.', 'in_proj_')
    for name, value in result.items():
        if re.search(r'ffn\.layers\.[04]\.weight', name):
            result[name] = value[:, :, None, None]
    return result


def last_map(model: Any, images: Tensor) -> Tensor:
    return model(images).last_hidden_state.flatten()


def last_level(model: Any, images: Tensor) -> Tensor:
    return model(images)[-1].flatten()


PAIRS = (
    Pair(
        'torchvision FCN-R50 -> mmseg',
        fcn,
        fcn_names,
        source_outputs=fcn_source,
        target_outputs=fcn_target,
        needs=('mmseg',),
    ),
    Pair(
        'torchvision MobileNetV2 -> mmseg', mobilenet, mobilenet_names, source_outputs=before_the_last, needs=('mmseg',)
    ),
    Pair(
        'HF SegFormer MiT-B0 -> mmseg',
        segformer,
        segformer_names,
        source_outputs=last_map,
        target_outputs=last_level,
        needs=('mmseg', 'transformers'),
    ),
)
