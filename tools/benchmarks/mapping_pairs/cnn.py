"""Convolutional networks of torchvision, timm and Hugging Face: nested blocks, squeeze-excitation, layer scales."""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
import torchvision
from timm.models import convnext as timm_convnext
from timm.models import resnet as timm_resnet
from torch import Tensor, nn
from torchvision.models import convnext as tv_convnext
from torchvision.models import resnet as tv_resnet

from mapping_pairs.base import Built, Pair, Rule, State, renamed

SHALLOW = [1, 2, 1, 1]


def images(tiny: bool, size: int = 96) -> Tensor:
    return torch.randn(1, 3, 64 if tiny else size, 64 if tiny else size)


def tv_resnet50(tiny: bool = False) -> nn.Module:
    return tv_resnet.ResNet(tv_resnet.Bottleneck, SHALLOW if tiny else [3, 4, 6, 3], num_classes=10 if tiny else 1000)


def timm_resnet50(tiny: bool = False) -> nn.Module:
    depths = SHALLOW if tiny else [3, 4, 6, 3]
    return timm_resnet.ResNet(timm_resnet.Bottleneck, depths, num_classes=10 if tiny else 1000)


def hf_resnet50(tiny: bool) -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(depths=SHALLOW if tiny else [3, 4, 6, 3], num_labels=10 if tiny else 1000)
    )


HF_RESNET: tuple[Rule, ...] = (
    (r'^resnet\.embedder\.embedder\.convolution', 'conv1'),
    (r'^resnet\.embedder\.embedder\.normalization', 'bn1'),
    (r'^resnet\.encoder\.stages\.(\d)\.layers', lambda match: f'layer{int(match[1]) + 1}'),
    (r'layer\.(\d)\.convolution', lambda match: f'conv{int(match[1]) + 1}'),
    (r'layer\.(\d)\.normalization', lambda match: f'bn{int(match[1]) + 1}'),
    (r'shortcut\.convolution', 'downsample.0'),
    (r'shortcut\.normalization', 'downsample.1'),
    (r'^classifier\.1', 'fc'),
)

INVERTED = {
    2: {'0.0': 'conv_dw', '0.1': 'bn1', '1': 'conv_pw', '2': 'bn2'},
    3: {'0.0': 'conv_pw', '0.1': 'bn1', '1.0': 'conv_dw', '1.1': 'bn2', '2': 'conv_pwl', '3': 'bn3'},
}
SQUEEZED = {
    2: {'0.0': 'conv_dw', '0.1': 'bn1', '1': 'se', '2.0': 'conv_pw', '2.1': 'bn2'},
    3: {'0.0': 'conv_pw', '0.1': 'bn1', '1.0': 'conv_dw', '1.1': 'bn2', '2': 'se', '3.0': 'conv_pwl', '3.1': 'bn3'},
}
"""timm's names of the parts of an inverted residual block, by how many convolutions it has."""

STEM = ((r'^features\.0\.0', 'conv_stem'), (r'^features\.0\.1', 'bn1'), (r'^classifier\.1', 'classifier'))


def part(parts: dict[int, dict[str, str]], convolutions: int, inner: str) -> str:
    """Return timm's name for what torchvision calls ``inner`` inside a block."""
    old = max((key for key in parts[convolutions] if inner.startswith(key + '.')), key=len)
    return parts[convolutions][old] + inner[len(old) :]


def mobilenet_names(state: State) -> dict[str, Tensor]:
    depths = [1, 2, 3, 4, 3, 3, 1]
    places = [f'blocks.{stage}.{index}' for stage, depth in enumerate(depths) for index in range(depth)]
    result = {}
    for name, value in state.items():
        block = re.match(r'features\.(\d+)\.conv\.(.*)', name)
        if block:
            inner = part(INVERTED, 2 if block[1] == '1' else 3, block[2])
            result[f'{places[int(block[1]) - 1]}.{inner}'] = value
        else:
            result[name] = value
    return renamed(result, *STEM, (r'^features\.18\.0', 'conv_head'), (r'^features\.18\.1', 'bn2'))


def efficientnet_names(state: State) -> dict[str, Tensor]:
    result = {}
    for name, value in state.items():
        block = re.match(r'features\.(\d+)\.(\d+)\.block\.(.*)', name)
        if block:
            inner = part(SQUEEZED, 2 if block[1] == '1' else 3, block[3])
            result[f'blocks.{int(block[1]) - 1}.{block[2]}.{inner}'] = value
        else:
            result[name] = value
    rules = (r'se\.fc1', 'se.conv_reduce'), (r'se\.fc2', 'se.conv_expand')
    return renamed(result, *STEM, *rules, (r'^features\.8\.0', 'conv_head'), (r'^features\.8\.1', 'bn2'))


def regnet_names(state: State) -> dict[str, Tensor]:
    return renamed(
        state,
        (r'^stem\.0', 'stem.conv'),
        (r'^stem\.1', 'stem.bn'),
        (r'^trunk_output\.block(\d)\.block\d-(\d+)', lambda match: f's{match[1]}.b{int(match[2]) + 1}'),
        (r'proj\.0', 'downsample.conv'),
        (r'proj\.1', 'downsample.bn'),
        (r'f\.a\.0', 'conv1.conv'),
        (r'f\.a\.1', 'conv1.bn'),
        (r'f\.b\.0', 'conv2.conv'),
        (r'f\.b\.1', 'conv2.bn'),
        (r'f\.c\.0', 'conv3.conv'),
        (r'f\.c\.1', 'conv3.bn'),
        (r'f\.se', 'se'),
        (r'^fc', 'head.fc'),
    )


DEPTHS, WIDTHS = [3, 3, 9, 3], [96, 192, 384, 768]
SMALL_DEPTHS, SMALL_WIDTHS = [1, 1, 3, 1], [8, 16, 24, 32]


def tv_convnext_tiny(tiny: bool) -> nn.Module:
    depths, widths = (SMALL_DEPTHS, SMALL_WIDTHS) if tiny else (DEPTHS, WIDTHS)
    following: list[int | None] = [*widths[1:], None]
    settings = [tv_convnext.CNBlockConfig(*sizes) for sizes in zip(widths, following, depths, strict=True)]
    return tv_convnext.ConvNeXt(settings, num_classes=10 if tiny else 1000)


def timm_convnext_tiny(tiny: bool, **settings: Any) -> nn.Module:
    depths, widths = (SMALL_DEPTHS, SMALL_WIDTHS) if tiny else (DEPTHS, WIDTHS)
    return timm_convnext.ConvNeXt(depths=depths, dims=widths, num_classes=10 if tiny else 1000, **settings)


def hf_convnext_tiny(tiny: bool) -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    depths, widths = (SMALL_DEPTHS, SMALL_WIDTHS) if tiny else (DEPTHS, WIDTHS)
    config = ConvNextConfig(depths=depths, hidden_sizes=widths, num_labels=10 if tiny else 1000, layer_norm_eps=1e-6)
    return ConvNextForImageClassification(config)


def convnext_to_timm(state: State) -> dict[str, Tensor]:
    """Return timm's tensors: stages at odd places, downsampling between them, layer scales without 1 x 1."""
    rules = (
        (r'^features\.0', 'stem'),
        (r'^features\.([1357])\.(\d+)', lambda match: f'stages.{int(match[1]) // 2}.blocks.{match[2]}'),
        (r'^features\.([246])', lambda match: f'stages.{int(match[1]) // 2}.downsample'),
        (r'layer_scale', 'gamma'),
        (r'block\.0', 'conv_dw'),
        (r'block\.2', 'norm'),
        (r'block\.3', 'mlp.fc1'),
        (r'block\.5', 'mlp.fc2'),
        (r'^classifier\.0', 'head.norm'),
        (r'^classifier\.2', 'head.fc'),
    )
    return {name: value.flatten() if 'gamma' in name else value for name, value in renamed(state, *rules).items()}


def convnext_to_hf(state: State) -> dict[str, Tensor]:
    """Return Hugging Face's tensors; linear layers from 1 x 1 convolutions where the source has those."""
    rules = (
        (r'^stem\.0', 'convnext.embeddings.patch_embeddings'),
        (r'^stem\.1', 'convnext.embeddings.layernorm'),
        (r'^stages', 'convnext.encoder.stages'),
        (r'blocks', 'layers'),
        (r'downsample', 'downsampling_layer'),
        (r'gamma', 'layer_scale_parameter'),
        (r'conv_dw', 'dwconv'),
        (r'(\d)\.norm', r'\1.layernorm'),
        (r'mlp\.fc(\d)', r'pwconv\1'),
        (r'^head\.norm', 'convnext.layernorm'),
        (r'^head\.fc', 'classifier'),
    )
    result = renamed(state, *rules)
    return {name: value.flatten(1) if re.search(r'pwconv\d\.weight', name) else value for name, value in result.items()}


def build_convnext(tiny: bool) -> Built:
    return tv_convnext_tiny(tiny), timm_convnext_tiny(tiny), images(tiny)


def both(source: Any, target: Any) -> Any:
    return lambda tiny: (source(tiny), target(tiny), images(tiny))


def stock(source: Any, target: str) -> Any:
    """Return a builder for architectures that have no tiny form and are small enough as they are."""
    return lambda tiny: (source(), timm.create_model(target), images(tiny))


PAIRS = (
    Pair('timm ResNet-50 -> torchvision', both(timm_resnet50, tv_resnet50), dict),
    Pair(
        'HF ResNet-50 -> torchvision',
        both(hf_resnet50, tv_resnet50),
        lambda state: renamed(state, *HF_RESNET),
        needs=('transformers',),
    ),
    Pair('torchvision MobileNetV2 -> timm', stock(torchvision.models.mobilenet_v2, 'mobilenetv2_100'), mobilenet_names),
    Pair(
        'torchvision EfficientNet-B0 -> timm',
        stock(torchvision.models.efficientnet_b0, 'efficientnet_b0'),
        efficientnet_names,
    ),
    Pair('torchvision RegNetY-400MF -> timm', stock(torchvision.models.regnet_y_400mf, 'regnety_004'), regnet_names),
    Pair('torchvision ConvNeXt-T -> timm', build_convnext, convnext_to_timm),
    Pair('timm ConvNeXt-T -> HF', both(timm_convnext_tiny, hf_convnext_tiny), convnext_to_hf, needs=('transformers',)),
    Pair(
        'timm ConvNeXt-T of 1x1 convolutions -> HF',
        both(lambda tiny: timm_convnext_tiny(tiny, conv_mlp=True), hf_convnext_tiny),
        convnext_to_hf,
        needs=('transformers',),
    ),
)
