"""Vision transformers of timm, Hugging Face and torchvision: fused and split attention, layer scales, tokens."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from mapping_pairs.base import Built, Pair, State, first_output, fuse, renamed, split

QKV = (r'\bqkv\b', r'\b([qkv])_proj\b')


TINY: dict[str, Any] = dict(img_size=32, patch_size=16, embed_dim=24, depth=3, num_heads=3, num_classes=5)


def images(tiny: bool, size: int = 224) -> Tensor:
    return torch.randn(1, 3, 32 if tiny else size, 32 if tiny else size)


def timm_vit(tiny: bool, name: str = 'vit_base_patch16_224', **settings: Any) -> nn.Module:
    if tiny:
        settings = {**TINY, **settings}
    return timm.create_model(name, **settings)


def hf_vit(tiny: bool) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    small = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=32)
    return ViTForImageClassification(ViTConfig(num_labels=5, **small) if tiny else ViTConfig(num_labels=1000))


TIMM_TO_HF = (
    (r'^(cls_token)', r'vit.embeddings.\1'),
    (r'^pos_embed', 'vit.embeddings.position_embeddings'),
    (r'^patch_embed\.proj', 'vit.embeddings.patch_embeddings.projection'),
    (r'^blocks\.(\d+)\.norm1', r'vit.layers.\1.layernorm_before'),
    (r'^blocks\.(\d+)\.norm2', r'vit.layers.\1.layernorm_after'),
    (r'^blocks\.(\d+)\.attn\.proj', r'vit.layers.\1.attention.o_proj'),
    (r'^blocks\.(\d+)\.attn', r'vit.layers.\1.attention'),
    (r'^blocks', 'vit.layers'),
    (r'^norm', 'vit.layernorm'),
    (r'^head', 'classifier'),
)

HF_TO_TIMM = (
    (r'^vit\.embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
    (r'^vit\.embeddings\.position_embeddings', 'pos_embed'),
    (r'^vit\.embeddings\.', ''),
    (r'^vit\.layernorm', 'norm'),
    (r'^vit\.layers', 'blocks'),
    (r'layernorm_before', 'norm1'),
    (r'layernorm_after', 'norm2'),
    (r'attention\.o_proj', 'attn.proj'),
    (r'attention', 'attn'),
    (r'^classifier', 'head'),
)

TORCHVISION_TO_TIMM = (
    (r'^class_token', 'cls_token'),
    (r'^conv_proj', 'patch_embed.proj'),
    (r'^encoder\.pos_embedding', 'pos_embed'),
    (r'^encoder\.ln', 'norm'),
    (r'^encoder\.layers\.encoder_layer_', 'blocks.'),
    (r'ln_(\d)', r'norm\1'),
    (r'self_attention\.in_proj_', 'attn.qkv.'),
    (r'self_attention\.out_proj', 'attn.proj'),
    (r'mlp\.0', 'mlp.fc1'),
    (r'mlp\.3', 'mlp.fc2'),
    (r'^heads\.head', 'head'),
)

TIMM_TO_TORCHVISION = (
    (r'^cls_token', 'class_token'),
    (r'^patch_embed\.proj', 'conv_proj'),
    (r'^pos_embed', 'encoder.pos_embedding'),
    (r'^norm', 'encoder.ln'),
    (r'^head', 'heads.head'),
    (r'^blocks\.', 'encoder.layers.encoder_layer_'),
    (r'\.norm(\d)', r'.ln_\1'),
    (r'attn\.qkv\.', 'self_attention.in_proj_'),
    (r'attn\.proj', 'self_attention.out_proj'),
    (r'mlp\.fc1', 'mlp.0'),
    (r'mlp\.fc2', 'mlp.3'),
)


def timm_to_hf(tiny: bool) -> Built:
    return timm_vit(tiny), hf_vit(tiny), images(tiny)


def hf_to_timm(tiny: bool) -> Built:
    return hf_vit(tiny), timm_vit(tiny), images(tiny)


def hf_names(state: State) -> dict[str, Tensor]:
    return renamed(split(state, QKV[0], ('q_proj', 'k_proj', 'v_proj')), *TIMM_TO_HF)


def timm_names(state: State) -> dict[str, Tensor]:
    return renamed(fuse(state, QKV[1], 'qkv'), *HF_TO_TIMM)


def torchvision_vit(tiny: bool) -> nn.Module:
    sizes = (32, 16, 3, 3, 24, 96) if tiny else (224, 16, 12, 12, 768, 3072)
    return VisionTransformer(*sizes, num_classes=5 if tiny else 1000)


def torchvision_to_timm(tiny: bool) -> Built:
    return torchvision_vit(tiny), timm_vit(tiny), images(tiny)


def timm_to_torchvision(tiny: bool) -> Built:
    return timm_vit(tiny), torchvision_vit(tiny), images(tiny)


def hf_dinov2(tiny: bool) -> nn.Module:
    from transformers import Dinov2Config, Dinov2Model

    small = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, image_size=32, patch_size=16)
    base = dict(hidden_size=384, num_attention_heads=6, image_size=224, patch_size=14)
    return Dinov2Model(Dinov2Config(**(small if tiny else base)))


def dinov2_to_timm(tiny: bool) -> Built:
    target = timm_vit(tiny, 'vit_small_patch14_dinov2', num_classes=0, **({} if tiny else {'img_size': 224}))
    return hf_dinov2(tiny), target, images(tiny)


def dinov2_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^embeddings\.patch_embeddings\.projection', 'patch_embed.proj'),
        (r'^embeddings\.position_embeddings', 'pos_embed'),
        (r'^embeddings\.', ''),
        (r'^layernorm', 'norm'),
        (r'^encoder\.layer', 'blocks'),
        (r'attention\.o_proj', 'attn.proj'),
        (r'attention', 'attn'),
        (r'layer_scale(\d)\.lambda1', r'ls\1.gamma'),
    )
    kept = {name: value for name, value in state.items() if name != 'embeddings.mask_token'}
    return renamed(fuse(kept, QKV[1], 'qkv'), *rules)


def cls_row(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return the class token after the last norm."""
    return first_output(module, inputs).view(1, -1, module.config.hidden_size)[:, 0].flatten()  # type: ignore[union-attr,operator]


def clip_to_timm(tiny: bool) -> Built:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    small = dict(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=32, patch_size=16
    )
    base = dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, image_size=224, patch_size=32)
    config = CLIPVisionConfig(**(small if tiny else base), hidden_act='gelu')
    return CLIPVisionModel(config), timm_vit(tiny, 'vit_base_patch32_clip_224', num_classes=0), images(tiny)


def clip_names(state: State) -> dict[str, Tensor]:
    rules = (
        (r'^embeddings\.class_embedding', 'cls_token'),
        (r'^embeddings\.patch_embedding', 'patch_embed.proj'),
        (r'^embeddings\.position_embedding\.weight', 'pos_embed'),
        (r'^pre_layrnorm', 'norm_pre'),
        (r'^post_layernorm', 'norm'),
        (r'^encoder\.layers', 'blocks'),
        (r'self_attn\.out_proj', 'attn.proj'),
        (r'self_attn', 'attn'),
        (r'layer_norm', 'norm'),
    )
    result = renamed(fuse(state, QKV[1], 'qkv'), *rules)
    result['cls_token'] = result['cls_token'][None, None]
    result['pos_embed'] = result['pos_embed'][None]
    return result


def pooled(module: nn.Module, inputs: Tensor) -> Tensor:
    return module(inputs).pooler_output.flatten()


class Resized(nn.Module):
    """Hugging Face's ViT on pictures of another size than its position table is made for."""

    def __init__(self, tiny: bool) -> None:
        super().__init__()
        self.model = hf_vit(tiny)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixels, interpolate_pos_encoding=True).logits


def hf_to_larger_timm(tiny: bool) -> Built:
    size = 48 if tiny else 320
    return Resized(tiny), timm_vit(tiny, img_size=size), torch.randn(1, 3, size, size)


def larger_names(state: State) -> dict[str, Tensor]:
    """Return timm's tensors, the positions resized as Hugging Face does it: bicubic, the class token kept."""
    result = timm_names(renamed(state, (r'^model\.', '')))
    token, table = result['pos_embed'][:, :1], result['pos_embed'][:, 1:]
    old = round(table.shape[1] ** 0.5)
    new = {2: 3, 14: 20}[old]
    planes = table.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    planes = F.interpolate(planes, size=(new, new), mode='bicubic', align_corners=False)
    result['pos_embed'] = torch.cat([token, planes.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
    return result


PAIRS = (
    Pair('timm ViT-B/16 -> HF ViT', timm_to_hf, hf_names, needs=('transformers',)),
    Pair('HF ViT -> timm ViT-B/16', hf_to_timm, timm_names, needs=('transformers',)),
    Pair('torchvision ViT-B/16 -> timm', torchvision_to_timm, lambda state: renamed(state, *TORCHVISION_TO_TIMM)),
    Pair('timm ViT-B/16 -> torchvision', timm_to_torchvision, lambda state: renamed(state, *TIMM_TO_TORCHVISION)),
    Pair('HF DINOv2-S -> timm', dinov2_to_timm, dinov2_names, source_outputs=cls_row, needs=('transformers',)),
    Pair('HF CLIP ViT-B/32 -> timm', clip_to_timm, clip_names, source_outputs=pooled, needs=('transformers',)),
    Pair('HF ViT-B/16 -> timm at 320 pixels', hf_to_larger_timm, larger_names, needs=('transformers',)),
)
