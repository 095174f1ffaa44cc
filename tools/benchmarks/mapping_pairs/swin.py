"""Swin transformers of timm, torchvision, Hugging Face and mmdet; mmdet merges patches in another channel order."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn
from torchvision.models import SwinTransformer

from mapping_pairs.base import Built, Pair, State, first_output, fuse, renamed
from mapping_pairs.vit import QKV, images

BASE: dict[str, Any] = dict(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24])
TINY: dict[str, Any] = dict(embed_dim=24, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8])


def timm_swin(tiny: bool, **settings: Any) -> nn.Module:
    classes = settings.pop('num_classes', 10 if tiny else 1000)
    return timm.create_model(
        'swin_tiny_patch4_window7_224', **(TINY if tiny else BASE), num_classes=classes, **settings
    )


def torchvision_swin(tiny: bool) -> nn.Module:
    sizes = TINY if tiny else BASE
    return SwinTransformer(
        [4, 4], **sizes, window_size=[7, 7], stochastic_depth_prob=0.2, num_classes=10 if tiny else 1000
    )


def hf_swin(tiny: bool) -> nn.Module:
    from transformers import SwinConfig, SwinModel

    return SwinModel(SwinConfig(**(TINY if tiny else BASE), window_size=7))


def mmdet_swin(tiny: bool) -> nn.Module:
    from mmdet.models.backbones import SwinTransformer as MMSwin

    sizes = {'embed_dims': (TINY if tiny else BASE)['embed_dim'], **(TINY if tiny else BASE)}
    sizes.pop('embed_dim')
    return MMSwin(**sizes, window_size=7, out_indices=(3,))


def torchvision_to_timm(tiny: bool) -> Built:
    return torchvision_swin(tiny), timm_swin(tiny), images(False)


TORCHVISION_TO_TIMM = (
    (r'^features\.0\.0', 'patch_embed.proj'),
    (r'^features\.0\.2', 'patch_embed.norm'),
    (r'^features\.([1357])\.(\d+)', lambda match: f'layers.{int(match[1]) // 2}.blocks.{match[2]}'),
    (r'^features\.([246])', lambda match: f'layers.{int(match[1]) // 2}.downsample'),
    (r'mlp\.0', 'mlp.fc1'),
    (r'mlp\.3', 'mlp.fc2'),
    (r'^head', 'head.fc'),
)


def torchvision_names(state: State) -> dict[str, Tensor]:
    return renamed({k: v for k, v in state.items() if not k.endswith('position_index')}, *TORCHVISION_TO_TIMM)


def hf_to_timm(tiny: bool) -> Built:
    return hf_swin(tiny), timm_swin(tiny, num_classes=0), images(False)


def hf_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
        (r'^embeddings\.norm', 'patch_embed.norm'),
        (r'^encoder\.', ''),
        (r'^layers\.(\d)\.downsample', lambda match: f'layers.{int(match[1]) + 1}.downsample'),
        (r'attention\.o_proj', 'attn.proj'),
        (r'attention\.relative_position_bias\.', 'attn.'),
        (r'attention\.', 'attn.'),
        (r'layernorm_before', 'norm1'),
        (r'layernorm_after', 'norm2'),
        (r'^layernorm', 'norm'),
    )
    kept = {name: value for name, value in state.items() if not name.endswith('position_index')}
    return renamed(fuse(kept, QKV[1], 'qkv'), *rules)


def pooled(module: nn.Module, inputs: Tensor) -> Tensor:
    return module(inputs).pooler_output.flatten()


def timm_to_mmdet(tiny: bool) -> Built:
    """Return both at 448 pixels: where one window covers the map, timm does not shift and mmdet does."""
    return timm_swin(tiny, img_size=448), mmdet_swin(tiny), images(False, 448)


def mmdet_names(state: State) -> dict[str, Tensor]:
    """Return mmdet's tensors: channels of merged patches by channel, row, column instead of column, row, channel."""
    rules = (
        (r'^patch_embed\.proj', 'patch_embed.projection'),
        (r'^layers\.(\d)\.downsample', lambda match: f'stages.{int(match[1]) - 1}.downsample'),
        (r'^layers', 'stages'),
        (r'attn\.', 'attn.w_msa.'),
        (r'mlp\.fc1', 'ffn.layers.0.0'),
        (r'mlp\.fc2', 'ffn.layers.1'),
        (r'^norm', 'norm3'),
    )
    result = renamed({name: value for name, value in state.items() if not name.startswith('head')}, *rules)
    for name, value in result.items():
        if 'downsample' in name:
            parts = value.unflatten(-1, (2, 2, value.shape[-1] // 4))  # column, row, channel
            result[name] = parts.transpose(-3, -2).movedim(-1, -3).flatten(-3)
    return result


def feature_map(module: Any, inputs: Tensor) -> Tensor:
    return module.forward_features(inputs).permute(0, 3, 1, 2).flatten()


MERGING = r'(layers|stages)\.\d\.downsample\.(norm|reduction)\.(weight|bias)'
PAIRS = (
    Pair('torchvision Swin-T -> timm', torchvision_to_timm, torchvision_names, refusable_bare=MERGING),
    Pair(
        'HF Swin-T -> timm',
        hf_to_timm,
        hf_names,
        source_outputs=pooled,
        refusable_bare=MERGING,
        needs=('transformers',),
    ),
    Pair(
        'timm Swin-T -> mmdet',
        timm_to_mmdet,
        mmdet_names,
        source_outputs=feature_map,
        target_outputs=first_output,
        refusable=MERGING,
        needs=('mmdet',),
    ),
)
