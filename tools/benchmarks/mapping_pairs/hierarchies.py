"""Encoders in stages: Swin V2, ConvNeXt V2, MobileNetV3, MobileViT and their like."""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, Rule, State, first_output, fuse, renamed
from mapping_pairs.cnn import SQUEEZED, STEM, images, part
from mapping_pairs.swin import TORCHVISION_TO_TIMM
from mapping_pairs.vit import QKV

SWIN: dict[str, Any] = dict(embed_dim=24, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8])


def timm_swinv2(**settings: Any) -> nn.Module:
    return timm.create_model('swinv2_tiny_window8_256', **SWIN, img_size=256, **settings)


def hf_swinv2(tiny: bool) -> Built:
    from transformers import Swinv2Config, Swinv2Model

    config = Swinv2Config(**SWIN, image_size=256, window_size=8, pretrained_window_sizes=[0, 0, 0, 0])
    return Swinv2Model(config), timm_swinv2(num_classes=0), torch.randn(1, 3, 256, 256)


def hf_swinv2_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
        (r'^embeddings\.norm', 'patch_embed.norm'),
        (r'^encoder\.', ''),
        (r'^layers\.(\d)\.downsample', lambda match: f'layers.{int(match[1]) + 1}.downsample'),
        (r'attention\.self\.query\.weight', 'attn.q_proj.weight'),
        (r'attention\.self\.key\.weight', 'attn.k_proj.weight'),
        (r'attention\.self\.value\.weight', 'attn.v_proj.weight'),
        (r'attention\.self\.query\.bias', 'attn.q_bias'),
        (r'attention\.self\.value\.bias', 'attn.v_bias'),
        (r'attention\.self\.continuous_position_bias_mlp', 'attn.cpb_mlp'),
        (r'attention\.self', 'attn'),
        (r'attention\.output\.dense', 'attn.proj'),
        (r'intermediate\.dense', 'mlp.fc1'),
        (r'output\.dense', 'mlp.fc2'),
        (r'layernorm_before', 'norm1'),
        (r'layernorm_after', 'norm2'),
        (r'^layernorm', 'norm'),
    )
    return fuse(renamed(state, *rules), QKV[1], 'qkv')


def pooled(module: nn.Module, inputs: Tensor) -> Tensor:
    return module(inputs).pooler_output.flatten()


def tv_swinv2(tiny: bool) -> Built:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    source = SwinTransformer(
        [4, 4], **SWIN, window_size=[8, 8], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2,
        num_classes=10,
    )  # fmt: skip
    return source, timm_swinv2(num_classes=10), torch.randn(1, 3, 256, 256)


def tv_swinv2_names(state: State) -> dict[str, Tensor]:
    """Return timm's tensors: a bias for queries and one for values, none for keys (torchvision sets it to zero)."""
    rules = (*TORCHVISION_TO_TIMM, (r'cpb_mlp\.fc1', 'cpb_mlp.0'), (r'cpb_mlp\.fc2', 'cpb_mlp.2'))
    result = renamed({k: v for k, v in state.items() if not re.search('position_index|coords_table', k)}, *rules)
    for name in [name for name in result if name.endswith('qkv.bias')]:
        queries, _, values = result.pop(name).chunk(3)
        result[name.replace('qkv.bias', 'q_bias')], result[name.replace('qkv.bias', 'v_bias')] = queries, values
    return result


def without_key_bias(module: nn.Module, inputs: Tensor) -> Tensor:
    for name, value in module.named_parameters():
        if name.endswith('qkv.bias'):
            value.data.view(3, -1)[1].zero_()
    return module(inputs).flatten()


def convnextv2(tiny: bool) -> Built:
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    sizes = ([1, 1, 3, 1], [8, 16, 24, 32]) if tiny else ([2, 2, 6, 2], [40, 80, 160, 320])
    config = ConvNextV2Config(depths=sizes[0], hidden_sizes=sizes[1], num_labels=10, layer_norm_eps=1e-6)
    target = timm.create_model('convnextv2_atto', depths=sizes[0], dims=sizes[1], num_classes=10)
    return ConvNextV2ForImageClassification(config), target, images(tiny)


def convnextv2_names(state: State) -> dict[str, Tensor]:
    """Return timm's tensors: 1 x 1 convolutions, and response norms without axes of one."""
    rules = (
        (r'^convnextv2\.embeddings\.patch_embeddings', 'stem.0'),
        (r'^convnextv2\.embeddings\.layernorm', 'stem.1'),
        (r'^convnextv2\.encoder\.', ''),
        (r'^convnextv2\.layernorm', 'head.norm'),
        (r'\.layers\.', '.blocks.'),
        (r'downsampling_layer', 'downsample'),
        (r'dwconv', 'conv_dw'),
        (r'\.layernorm', '.norm'),
        (r'pwconv', 'mlp.fc'),
        (r'grn', 'mlp.grn'),
        (r'^classifier', 'head.fc'),
    )
    result = renamed(state, *rules)
    for name, value in result.items():
        if 'grn' in name:
            result[name] = value.flatten()
        elif re.search(r'mlp\.fc\d\.weight', name):
            result[name] = value[:, :, None, None]
    return result


def mobilenetv3(tiny: bool) -> Built:
    target = timm.create_model('mobilenetv3_small_100', norm_layer=None, bn_eps=1e-3)
    return torchvision.models.mobilenet_v3_small(), target, images(tiny)


def mobilenetv3_names(state: State) -> dict[str, Tensor]:
    """Return timm's tensors: a convolution for the first layer of the classifier."""
    places = ['0.0', '1.0', '1.1', *(f'2.{n}' for n in range(3)), '3.0', '3.1', *(f'4.{n}' for n in range(3))]
    result = {}
    for name, value in state.items():
        block = re.match(r'features\.(\d+)\.block\.(.*)', name)
        if block:
            squeezed = any(re.match(rf'features\.{block[1]}\.block\.\d\.fc1', key) for key in state)
            inner = block[2] if squeezed else re.sub(r'^2\.', '3.', block[2])
            result[f'blocks.{places[int(block[1]) - 1]}.{part(SQUEEZED, 2 if block[1] == "1" else 3, inner)}'] = value
        else:
            result[name] = value
    rules: tuple[Rule, ...] = (
        (r'^features\.12\.0', 'blocks.5.0.conv'),
        (r'^features\.12\.1', 'blocks.5.0.bn1'),
        (r'^classifier\.0', 'conv_head'),
        (r'^classifier\.3', 'classifier'),
        (r'se\.fc1', 'se.conv_reduce'),
        (r'se\.fc2', 'se.conv_expand'),
    )
    result = renamed(result, *STEM[:2], *rules)
    result['conv_head.weight'] = result['conv_head.weight'][:, :, None, None]
    return result


def mmseg_mobilenetv3(tiny: bool) -> Built:
    from mmseg.models.backbones import MobileNetV3

    source = torchvision.models.mobilenet_v3_large()
    target = MobileNetV3(arch='large', out_indices=(16,), norm_cfg=dict(type='BN', eps=1e-3))
    convolutions = [[part for part in model.modules() if isinstance(part, nn.Conv2d)] for model in (source, target)]
    for old, new in zip(*convolutions, strict=True):  # mmseg dilates, and pads where it strides
        new.__class__ = nn.Conv2d
        new.stride, new.dilation, new.padding = old.stride, old.dilation, old.padding
    return source, target, images(tiny)


def mmseg_names(state: State) -> dict[str, Tensor]:
    """Return mmseg's tensors, by which of a block's parts has how many axes."""
    result = {}
    for name, value in state.items():
        block = re.match(r'features\.(\d+)\.(?:block\.)?(.*)', name)
        if not block:
            continue
        place, inner = f'layer{block[1]}', block[2]
        if re.match(r'\d\.fc', inner):
            result[f'{place}.se.{re.sub(r".*fc", "conv", inner).replace(".", ".conv.", 1)}'] = value
            continue
        chain = [key for key in state if re.match(rf'features\.{block[1]}\.(block\.)?\d(\.\d)?\.weight$', key)]
        chain = [key for key in chain if state[key].ndim == 4]
        index = sorted({re.sub(r'(\d)\.weight$', '', key) for key in chain}).index(re.sub(r'\d\.\w+$', '', name))
        kind = 'conv' if name.rpartition('.')[0] + '.weight' in chain else 'bn'
        parts = {
            1: [''],
            2: ['depthwise_conv.', 'linear_conv.'],
            3: ['expand_conv.', 'depthwise_conv.', 'linear_conv.'],
        }
        result[f'{place}.{parts[len(chain)][index]}{kind}.{name.rpartition(".")[2]}'] = value
    return result


def features(module: Any, inputs: Tensor) -> Tensor:
    return module.features(inputs).flatten()


MERGING = r'layers\.\d\.downsample\..*'
PAIRS = (
    Pair('HF Swin V2 -> timm', hf_swinv2, hf_swinv2_names, pooled, refusable_bare=MERGING, needs=('transformers',)),
    Pair('torchvision Swin V2 -> timm', tv_swinv2, tv_swinv2_names, without_key_bias, refusable_bare=MERGING),
    Pair('HF ConvNeXt V2 -> timm', convnextv2, convnextv2_names, needs=('transformers',)),
    Pair('torchvision MobileNetV3-S -> timm', mobilenetv3, mobilenetv3_names),
    Pair(
        'torchvision MobileNetV3-L -> mmseg', mmseg_mobilenetv3, mmseg_names, features, first_output, needs=('mmseg',)
    ),
)
