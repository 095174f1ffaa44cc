"""Orders that differ between libraries: SegFormer's joined levels, SSD's classes; and more of torchvision and Llama."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from mapping_pairs.authors import UnderOtherNames
from mapping_pairs.base import Built, Pair, Rule, State, renamed
from mapping_pairs.cnn import stock
from mapping_pairs.detection import flat, layer4, mmdet_model, pictures, without_head
from mapping_pairs.official import back, other_names
from mapping_pairs.segmentation import last_level, segformer_names


class Segmentor(nn.Module):
    """mmseg's backbone and head of SegFormer-B0."""

    def __init__(self) -> None:
        super().__init__()
        from mmseg.models.backbones import MixVisionTransformer
        from mmseg.models.decode_heads import SegformerHead

        sizes = dict(embed_dims=32, num_heads=[1, 2, 5, 8], num_layers=[2, 2, 2, 2])
        self.backbone = MixVisionTransformer(norm_cfg=dict(type='LN', eps=1e-5), **sizes)
        self.decode_head = SegformerHead(
            in_channels=[32, 64, 160, 256], in_index=[0, 1, 2, 3], channels=256, dropout_ratio=0.0, num_classes=7,
            norm_cfg=dict(type='BN'), align_corners=False,
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.decode_head(self.backbone(images))
        return result


def segmentor(tiny: bool) -> Built:
    from mmseg.utils import register_all_modules
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    register_all_modules(init_default_scope=True)
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=7)), Segmentor(), torch.randn(1, 3, 64, 64)


def segmentor_names(state: State) -> dict[str, Tensor]:
    """Return mmseg's tensors; Hugging Face joins the levels from the last to the first, and has no norm per level."""
    body = {name.removeprefix('segformer.encoder.').removeprefix('segformer.'): value
            for name, value in state.items() if name.startswith('segformer.')}  # fmt: skip
    head = {name: value for name, value in state.items() if name.startswith('decode_head.')}
    rules: tuple[Rule, ...] = (
        (r'linear_projections\.(\d)\.proj', r'convs.\1.conv'),
        (r'linear_fuse', 'fusion_conv.conv'),
        (r'batch_norm', 'fusion_conv.bn'),
        (r'classifier', 'conv_seg'),
    )
    result = renamed({name: value for name, value in head.items() if not name.endswith('proj.bias')}, *rules)
    joined = result['decode_head.fusion_conv.conv.weight']
    result['decode_head.fusion_conv.conv.weight'] = joined.unflatten(1, (4, -1)).flip(1).flatten(1, 2)
    for level in range(4):
        name = f'decode_head.convs.{level}.conv.weight'
        result[name] = result[name][:, :, None, None]
    return {**{f'backbone.{name}': value for name, value in segformer_names(body).items()}, **result}


def segmentor_source(model: Any, images: Tensor) -> Tensor:
    """Return the last level, each level's projection without bias, and what the rest of the head makes of those."""
    levels = list(model(pixel_values=images, output_hidden_states=True).hidden_states)
    head = model.decode_head
    parts = [
        F.conv2d(level, layer.proj.weight[:, :, None, None])
        for level, layer in zip(levels, head.linear_projections, strict=True)
    ]
    return flat(levels[-1], parts, after(parts[::-1], head.linear_fuse, head.batch_norm, head.classifier))


def after(parts: list[Tensor], *layers: nn.Module) -> Tensor:
    fuse, norm, last = layers
    joined = torch.cat([F.interpolate(part, (16, 16)) for part in parts], 1)
    result: Tensor = last(norm(fuse(joined)).relu())
    return result


def segmentor_target(model: Any, images: Tensor) -> Tensor:
    levels = list(model.backbone(images))
    head = model.decode_head
    parts = [layer.conv(level) for level, layer in zip(levels, head.convs, strict=True)]
    return flat(levels[-1], parts, after(parts, head.fusion_conv.conv, head.fusion_conv.bn, head.conv_seg))


CLASSES = 81


def ssd(tiny: bool) -> Built:
    source = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES)
    return source, mmdet_model('ssd300.py'), torch.randn(1, 3, 300, 300)


def turned(rows: Tensor, axis: int) -> Tensor:
    """Return class rows, or class channels, of every anchor with the background last instead of first."""
    parts = rows.unflatten(axis, (-1, CLASSES))
    return parts.roll(-1, axis + 1).flatten(axis, axis + 1)


def ssd_names(state: State) -> dict[str, Tensor]:
    places = {'1': 24, '3': 26, '5': 28, '7.1': 31, '7.3': 33}
    rules: tuple[Rule, ...] = (
        (r'^backbone\.scale_weight', 'neck.l2_norm.weight'),
        (r'^backbone\.extra\.0\.(7\.\d|\d)', lambda match: f'backbone.features.{places[match[1]]}'),
        (
            r'^backbone\.extra\.(\d)\.(\d)',
            lambda match: f'neck.extra_layers.{int(match[1]) - 1}.{int(match[2]) // 2}.conv',
        ),
        (r'^head\.classification_head\.module_list\.(\d)', r'bbox_head.cls_convs.\1.0'),
        (r'^head\.regression_head\.module_list\.(\d)', r'bbox_head.reg_convs.\1.0'),
    )
    result = renamed(state, *rules)
    return {name: turned(value, 0) if 'cls_convs' in name else value for name, value in result.items()}


def ssd_source(model: Any, images: Tensor) -> Tensor:
    levels = list(model.backbone(images).values())
    parts = model.head.classification_head.module_list, model.head.regression_head.module_list
    classes, boxes = ([layer(x) for layer, x in zip(part, levels, strict=True)] for part in parts)
    return flat(levels, [turned(scores, 1) for scores in classes], boxes)


def ssd_target(model: Any, images: Tensor) -> Tensor:
    levels = list(model.extract_feat(images))
    return flat(levels, *map(list, model.bbox_head(levels)))


def resnext(tiny: bool) -> Built:
    from mmdet.models.backbones import ResNeXt

    target = ResNeXt(depth=50, groups=32, base_width=4, out_indices=(3,))
    return torchvision.models.resnext50_32x4d(weights=None), target, pictures(tiny)


META: tuple[Rule, ...] = (
    (r'^model\.embed_tokens', 'tok_embeddings'),
    (r'^model\.layers', 'layers'),
    (r'self_attn\.([qkvo])_proj', r'attention.w\1'),
    (r'mlp\.gate_proj', 'feed_forward.w1'),
    (r'mlp\.down_proj', 'feed_forward.w2'),
    (r'mlp\.up_proj', 'feed_forward.w3'),
    (r'input_layernorm', 'attention_norm'),
    (r'post_attention_layernorm', 'ffn_norm'),
    (r'^model\.norm', 'norm'),
    (r'^lm_head', 'output'),
)
"""What the authors of Llama call its tensors (their q and k also have their rows in another order)."""


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=1, tie_word_embeddings=False, **sizes))


def llama_back(tiny: bool) -> Built:
    return UnderOtherNames(llama(), *META), llama(), torch.arange(2, 9)[None]


def llama_there(tiny: bool) -> Built:
    return llama(), UnderOtherNames(llama(), *META), torch.arange(2, 9)[None]


def logits(model: nn.Module, words: Tensor) -> Tensor:
    result: Tensor = model(words).logits
    return result.flatten()


LLAMA: dict[str, Any] = dict(source_outputs=logits, target_outputs=logits, needs=('transformers',))
PAIRS = (
    Pair(
        'HF SegFormer with its head -> mmseg',
        segmentor,
        segmentor_names,
        segmentor_source,
        segmentor_target,
        refusable=r'decode_head\.fusion_conv\.conv\.weight',
        needs=('mmseg', 'transformers'),
    ),
    Pair(
        'torchvision SSD300 -> mmdet',
        ssd,
        ssd_names,
        ssd_source,
        ssd_target,
        refusable=r'bbox_head\.cls_convs\..*',
        needs=('mmdet',),
    ),
    Pair('torchvision DenseNet-121 -> timm', stock(torchvision.models.densenet121, 'densenet121'), dict),
    Pair('torchvision ResNeXt-50 -> mmdet', resnext, without_head, layer4, last_level, needs=('mmdet',)),
    Pair("Llama under its authors' names -> HF", llama_back, lambda s: back(other_names(llama(), *META), s), **LLAMA),
    Pair("HF Llama -> its authors' names", llama_there, lambda state: renamed(state, *META), **LLAMA),
)
