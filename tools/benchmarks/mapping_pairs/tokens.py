"""Vision transformers with more than a class token: distillation tokens, layer scales, biases of relative position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mapping_pairs.base import Built, Pair, State, first_output, renamed, split
from mapping_pairs.vit import QKV, TIMM_TO_HF, images, timm_vit

SMALL: dict[str, Any] = dict(
    hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=32, num_labels=5
)


def deit(tiny: bool) -> Built:
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    base = dict(hidden_size=192, num_attention_heads=3, intermediate_size=768, num_labels=1000)
    config = DeiTConfig(**(SMALL if tiny else base), layer_norm_eps=1e-6)
    source = timm_vit(tiny, 'deit_tiny_distilled_patch16_224')
    return source, DeiTForImageClassificationWithTeacher(config), images(tiny)


def deit_names(state: State) -> dict[str, Tensor]:
    first = (
        (r'^dist_token', 'deit.embeddings.distillation_token'),
        (r'^head_dist', 'distillation_classifier'),
        (r'^head', 'cls_classifier'),
    )
    result = renamed(split(state, QKV[0], ('q_proj', 'k_proj', 'v_proj')), *first, *TIMM_TO_HF)
    return renamed(result, (r'^vit\.', 'deit.'))


def beit(tiny: bool) -> Built:
    from transformers import BeitConfig, BeitForImageClassification

    base = dict(num_labels=1000, image_size=224)
    config = BeitConfig(
        **(SMALL if tiny else base),
        use_relative_position_bias=True,
        layer_scale_init_value=0.1,
        layer_norm_eps=1e-6,
    )
    return timm_vit(tiny, 'beit_base_patch16_224'), BeitForImageClassification(config), images(tiny)


def beit_names(state: State) -> dict[str, Tensor]:
    """Return Hugging Face's tensors; timm keeps the biases of q and v beside the fused projection."""
    own = (
        (r'attn\.([qv])_bias', r'attention.\1_proj.bias'),
        (r'attn\.relative_position_bias_table', 'relative_position_bias.relative_position_bias_table'),
        (r'gamma_(\d)', r'lambda_\1'),
        (r'^fc_norm', 'vit.pooler.layernorm'),
    )
    kept = {name: value for name, value in state.items() if not name.endswith('position_index')}
    result = renamed(split(kept, QKV[0], ('q_proj', 'k_proj', 'v_proj')), *own, *TIMM_TO_HF)
    return renamed(result, (r'^vit\.', 'beit.'))


def logits(module: nn.Module, inputs: Tensor) -> Tensor:
    return module(inputs).logits.flatten()


def mmseg_vit(tiny: bool) -> Built:
    from mmseg.models.backbones import VisionTransformer

    sizes = (32, 24, 3, 3) if tiny else (224, 768, 12, 12)
    target = VisionTransformer(
        img_size=sizes[0],
        embed_dims=sizes[1],
        num_layers=sizes[2],
        num_heads=sizes[3],
        final_norm=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        patch_bias=True,
    )
    return timm_vit(tiny), target, images(tiny)


def mmseg_names(state: State) -> dict[str, Tensor]:
    """Return mmseg's tensors; its last norm has the name of the first norm in each block."""
    rules = (
        (r'^patch_embed\.proj', 'patch_embed.projection'),
        (r'^norm', 'ln1'),
        (r'^blocks', 'layers'),
        (r'\.norm(\d)', r'.ln\1'),
        (r'attn\.qkv\.', 'attn.attn.in_proj_'),
        (r'attn\.proj', 'attn.attn.out_proj'),
        (r'mlp\.fc1', 'ffn.layers.0.0'),
        (r'mlp\.fc2', 'ffn.layers.1'),
    )
    return renamed({name: value for name, value in state.items() if not name.startswith('head')}, *rules)


def patches(module: Any, inputs: Tensor) -> Tensor:
    return module.forward_features(inputs)[:, 1:].transpose(1, 2).flatten()


def pvt(tiny: bool) -> Built:
    import timm
    from mmdet.models.backbones import PyramidVisionTransformerV2

    target = PyramidVisionTransformerV2(embed_dims=32, num_layers=[2, 2, 2, 2], out_indices=(3,))
    return timm.create_model('pvt_v2_b0', num_classes=10), target, images(False, 64 if tiny else 128)


def pvt_names(state: State) -> dict[str, Tensor]:
    """Return mmdet's tensors: queries and fused keys and values in one, convolutions for the linear layers."""
    rules = (
        (r'^patch_embed\.proj', 'layers.0.0.projection'),
        (r'^patch_embed\.norm', 'layers.0.0.norm'),
        (r'^stages\.(\d)\.downsample\.proj', r'layers.\1.0.projection'),
        (r'^stages\.(\d)\.downsample\.norm', r'layers.\1.0.norm'),
        (r'^stages\.(\d)\.blocks', r'layers.\1.1'),
        (r'^stages\.(\d)\.norm', r'layers.\1.2'),
        (r'attn\.proj', 'attn.attn.out_proj'),
        (r'mlp\.fc1', 'ffn.layers.0'),
        (r'mlp\.dwconv', 'ffn.layers.1'),
        (r'mlp\.fc2', 'ffn.layers.4'),
    )
    result = renamed({name: value for name, value in state.items() if not name.startswith('head')}, *rules)
    for name in [name for name in result if 'attn.q.' in name]:
        queries, rest = result.pop(name), result.pop(name.replace('attn.q.', 'attn.kv.'))
        result[name.replace('attn.q.', 'attn.attn.in_proj_')] = torch.cat([queries, rest])
    for name, value in result.items():
        if value.ndim == 2 and 'ffn.layers' in name:
            result[name] = value[:, :, None, None]
    return result


def last_map(module: Any, inputs: Tensor) -> Tensor:
    return module.forward_features(inputs).flatten()


PAIRS = (
    Pair('timm DeiT-Ti distilled -> HF', deit, deit_names, target_outputs=logits, needs=('transformers',)),
    Pair('timm BEiT-B/16 -> HF', beit, beit_names, target_outputs=logits, needs=('transformers',)),
    Pair('timm ViT-B/16 -> mmseg', mmseg_vit, mmseg_names, patches, first_output, needs=('mmseg',)),
    Pair('timm PVTv2-B0 -> mmdet', pvt, pvt_names, last_map, first_output, needs=('mmdet',)),
)
