"""Detectors under the names that their authors' code gave them: Detectron2, DETR, YOLOX; and whole CLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mapping_pairs.authors import Clip, UnderOtherNames, clip_names
from mapping_pairs.base import Built, Pair, Rule, State, renamed
from mapping_pairs.detection import flat, mmdet_model, pictures
from mapping_pairs.queries import forward_queries

Names = dict[str, str]


def back(names: Names, state: State) -> dict[str, Tensor]:
    """Return tensors under their old names; ``names`` says which new ones those got."""
    return {old: state[new] for old, new in names.items()}


def other_names(model: nn.Module, *rules: Rule) -> Names:
    """Return {name: name under the rules} of a model's tensors."""
    state = {name: torch.empty(0) for name in model.state_dict()}
    return dict(zip(state, renamed(state, *rules), strict=True))


class Parts(nn.Module):
    """A detector, called for what its parts compute."""

    def __init__(self, model: nn.Module, run: Any) -> None:
        super().__init__()
        self.net = model
        self.__dict__['run'] = run

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self.net, images)


def renamed_pair(name: str, make: Any, run: Any, rules: tuple[Rule, ...]) -> Pair:
    """Return the pair of a model under its authors' names and the model itself."""
    names: Names = {}

    def build(tiny: bool) -> Built:
        target = Parts(make(tiny), run)
        names.update(other_names(target, *rules))
        return UnderOtherNames(Parts(make(tiny), run), *rules), target, pictures(True)

    return Pair(name, build, lambda state: back(names, state), needs=('mmdet',))


def mmdet_faster(tiny: bool) -> nn.Module:
    return mmdet_model('mask-rcnn_r50_fpn.py')


def faster_parts(model: Any, images: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    regions = [torch.randn(2, 256, size, size, generator=generator) for size in (7, 14)]
    levels = list(model.extract_feat(images))
    scores, boxes = model.roi_head.bbox_head(regions[0])
    masks = model.roi_head.mask_head(regions[1])
    return flat(levels, *map(list, model.rpn_head(levels)), scores, boxes, masks)


DETECTRON: tuple[Rule, ...] = (
    (r'^net\.backbone\.conv1', 'backbone.bottom_up.stem.conv1'),
    (r'^net\.backbone\.bn1', 'backbone.bottom_up.stem.conv1.norm'),
    (r'^net\.backbone\.layer(\d)', lambda match: f'backbone.bottom_up.res{int(match[1]) + 1}'),
    (r'(res\d\.\d+)\.bn(\d)', r'\1.conv\2.norm'),
    (r'downsample\.0', 'shortcut'),
    (r'downsample\.1', 'shortcut.norm'),
    (r'^net\.neck\.lateral_convs\.(\d)\.conv', lambda match: f'backbone.fpn_lateral{int(match[1]) + 2}'),
    (r'^net\.neck\.fpn_convs\.(\d)\.conv', lambda match: f'backbone.fpn_output{int(match[1]) + 2}'),
    (r'^net\.rpn_head\.rpn_conv', 'proposal_generator.rpn_head.conv'),
    (r'^net\.rpn_head\.rpn_cls', 'proposal_generator.rpn_head.objectness_logits'),
    (r'^net\.rpn_head\.rpn_reg', 'proposal_generator.rpn_head.anchor_deltas'),
    (r'^net\.roi_head\.bbox_head\.shared_fcs\.(\d)', lambda match: f'roi_heads.box_head.fc{int(match[1]) + 1}'),
    (r'^net\.roi_head\.bbox_head\.fc_cls', 'roi_heads.box_predictor.cls_score'),
    (r'^net\.roi_head\.bbox_head\.fc_reg', 'roi_heads.box_predictor.bbox_pred'),
    (r'^net\.roi_head\.mask_head\.convs\.(\d)\.conv', lambda match: f'roi_heads.mask_head.mask_fcn{int(match[1]) + 1}'),
    (r'^net\.roi_head\.mask_head\.upsample', 'roi_heads.mask_head.deconv'),
    (r'^net\.roi_head\.mask_head\.conv_logits', 'roi_heads.mask_head.predictor'),
)
"""Detectron2's names of Mask R-CNN from mmdet's."""


def mmdet_detr(tiny: bool) -> nn.Module:
    changes = {'encoder.num_layers': 2, 'decoder.num_layers': 2} if tiny else {}
    return mmdet_model('../../detr/detr_r50_8xb2-150e_coco.py', **changes)


FACEBOOK: tuple[Rule, ...] = (
    (r'^net\.backbone', 'backbone.0.body'),
    (r'^net\.neck\.convs\.0\.conv', 'input_proj'),
    (r'^net\.bbox_head\.fc_cls', 'class_embed'),
    (r'^net\.bbox_head\.reg_ffn\.layers\.0\.0', 'bbox_embed.layers.0'),
    (r'^net\.bbox_head\.reg_ffn\.layers\.1', 'bbox_embed.layers.1'),
    (r'^net\.bbox_head\.fc_reg', 'bbox_embed.layers.2'),
    (r'^net\.query_embedding', 'query_embed'),
    (r'^net\.(encoder|decoder)', r'transformer.\1'),
    (r'cross_attn', 'multihead_attn'),
    (r'_attn\.attn', '_attn'),
    (r'ffn\.layers\.0\.0', 'linear1'),
    (r'ffn\.layers\.1', 'linear2'),
    (r'norms\.(\d)', lambda match: f'norm{int(match[1]) + 1}'),
    (r'decoder\.post_norm', 'decoder.norm'),
)
"""The DETR authors' names from mmdet's."""


def mmdet_yolox(tiny: bool) -> nn.Module:
    changes = {'backbone.widen_factor': 0.25, 'neck.in_channels': [64, 128, 256], 'neck.out_channels': 64}
    changes |= {'bbox_head.in_channels': 64, 'bbox_head.feat_channels': 64}
    return mmdet_model('../../yolox/yolox_s_8xb8-300e_coco.py', **changes if tiny else {})


def yolox_parts(model: Any, images: Tensor) -> Tensor:
    levels = model.extract_feat(images)
    return flat(list(levels), *map(list, model.bbox_head(levels)))


MEGVII: tuple[Rule, ...] = (
    (r'^net\.backbone\.stem', 'backbone.backbone.stem'),
    (r'^net\.backbone\.stage(\d)', lambda match: f'backbone.backbone.dark{int(match[1]) + 1}'),
    (r'main_conv', 'conv1'),
    (r'short_conv', 'conv2'),
    (r'final_conv', 'conv3'),
    (r'(dark\d\.\d)\.blocks', r'\1.m'),
    (r'^net\.neck\.reduce_layers\.0', 'backbone.lateral_conv0'),
    (r'^net\.neck\.reduce_layers\.1', 'backbone.reduce_conv1'),
    (r'^net\.neck\.top_down_blocks\.0', 'backbone.C3_p4'),
    (r'^net\.neck\.top_down_blocks\.1', 'backbone.C3_p3'),
    (r'^net\.neck\.downsamples\.0', 'backbone.bu_conv2'),
    (r'^net\.neck\.downsamples\.1', 'backbone.bu_conv1'),
    (r'^net\.neck\.bottom_up_blocks\.0', 'backbone.C3_n3'),
    (r'^net\.neck\.bottom_up_blocks\.1', 'backbone.C3_n4'),
    (r'(C3_\w\d)\.blocks', r'\1.m'),
    (r'^net\.neck\.out_convs\.(\d)', r'head.stems.\1'),
    (r'^net\.bbox_head\.multi_level_cls_convs', 'head.cls_convs'),
    (r'^net\.bbox_head\.multi_level_reg_convs', 'head.reg_convs'),
    (r'^net\.bbox_head\.multi_level_conv_cls', 'head.cls_preds'),
    (r'^net\.bbox_head\.multi_level_conv_reg', 'head.reg_preds'),
    (r'^net\.bbox_head\.multi_level_conv_obj', 'head.obj_preds'),
)
"""YOLOX's names from mmdet's."""


class TextTower(nn.Module):
    """The text side of OpenAI's CLIP, with the names at the root of the model."""

    def __init__(self, width: int, heads: int, depth: int, words: int, length: int, out: int) -> None:
        super().__init__()
        self.visual = Clip(width, heads, depth, 32, 16, out)
        text = Clip(width, heads, depth, 32, 16, out)
        self.positional_embedding = nn.Parameter(torch.zeros(length, width))
        self.text_projection = nn.Parameter(torch.zeros(width, out))
        self.logit_scale = nn.Parameter(torch.ones([]))
        self.transformer = text.transformer
        self.token_embedding = nn.Embedding(words, width)
        self.ln_final = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        x = self.token_embedding(input_ids) + self.positional_embedding[: input_ids.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(input_ids.shape[1])
        for block in self.transformer.get_submodule('resblocks'):
            y = block.ln_1(x)
            x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        text = self.ln_final(x)[torch.arange(len(x)), input_ids.argmax(-1)] @ self.text_projection
        return torch.cat([text.flatten(), self.visual(pixel_values).flatten()])


def whole_clip(tiny: bool) -> Built:
    """Return OpenAI's CLIP with two towers of one width and depth, and Hugging Face's."""
    from transformers import CLIPConfig, CLIPModel

    width, heads, depth, out = (24, 3, 3, 12) if tiny else (192, 3, 12, 96)
    sizes: dict[str, Any] = dict(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
        hidden_act='gelu', projection_dim=out,
    )  # fmt: skip
    words = dict(vocab_size=60, max_position_embeddings=12, eos_token_id=59, bos_token_id=0, pad_token_id=1)
    config = CLIPConfig(
        text_config={**sizes, **words}, vision_config={**sizes, 'image_size': 32, 'patch_size': 16}, projection_dim=out
    )
    ids = torch.randint(2, 59, (2, 9))
    ids[:, 5] = 59
    inputs = {'input_ids': ids, 'pixel_values': torch.randn(2, 3, 32, 32)}
    return TextTower(width, heads, depth, 60, 12, out), CLIPModel(config), inputs


def whole_clip_names(state: State) -> dict[str, Tensor]:
    visual = clip_names({n.removeprefix('visual.'): v for n, v in state.items() if n.startswith('visual.')})
    text = {name: value for name, value in state.items() if not name.startswith('visual.')}
    own = {'logit_scale': text.pop('logit_scale'), 'text_projection.weight': text.pop('text_projection').T}
    rules: tuple[Rule, ...] = (
        (r'^token_embedding', 'text_model.embeddings.token_embedding'),
        (r'^ln_final', 'text_model.final_layer_norm'),
    )
    fake = clip_names({**text, 'proj': torch.zeros(1, 1)})
    fake.pop('visual_projection.weight')
    return {**visual, **own, **renamed(fake, (r'^vision_model', 'text_model'), *rules)}


def clip_outputs(model: Any, inputs: Any) -> Tensor:
    text = model.text_projection(model.text_model(input_ids=inputs['input_ids']).pooler_output)
    image = model.visual_projection(model.vision_model(pixel_values=inputs['pixel_values']).pooler_output)
    return torch.cat([text.flatten(), image.flatten()])


PAIRS = (
    renamed_pair('Detectron2 Mask R-CNN -> mmdet', mmdet_faster, faster_parts, DETECTRON),
    renamed_pair('DETR of its authors -> mmdet', mmdet_detr, forward_queries, FACEBOOK),
    renamed_pair('YOLOX of its authors -> mmdet', mmdet_yolox, yolox_parts, MEGVII),
    Pair(
        'OpenAI CLIP, both towers -> HF',
        whole_clip,
        whole_clip_names,
        target_outputs=clip_outputs,
        needs=('transformers',),
    ),
)
