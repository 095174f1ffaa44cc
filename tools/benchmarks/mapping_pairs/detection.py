"""Detectors: torchvision's and Hugging Face's beside mmdet's, compared by what their parts compute."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection import FCOS, MaskRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from mapping_pairs.base import Built, Pair, Rule, State, renamed

COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Category numbers below 91 that COCO never used."""


def mmdet_model(config: str, **changes: Any) -> nn.Module:
    """Build a detector from mmdet's own config of the model, with changes to its parts."""
    import mmdet
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=True)
    model = Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs/_base_/models' / config).model
    for name, value in changes.items():
        *path, leaf = name.split('.')
        place = model
        for key in path:
            place = place[key]
        place[leaf] = value
    return MODELS.build(model)


def pyramid(first: int = 1, **settings: Any) -> nn.Module:
    """Return torchvision's ResNet-50 with a feature pyramid, its batch norms frozen as in the trained files."""
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    return _resnet_fpn_extractor(body, 3, returned_layers=list(range(first, 5)), **settings)


def pictures(tiny: bool) -> Tensor:
    return torch.randn(1, 3, *((64, 64) if tiny else (128, 160)))


BACKBONE: tuple[Rule, ...] = (
    (r'^backbone\.body', 'backbone'),
    (r'^backbone\.fpn\.inner_blocks\.(\d)\.0', r'neck.lateral_convs.\1.conv'),
    (r'^backbone\.fpn\.layer_blocks\.(\d)\.0', r'neck.fpn_convs.\1.conv'),
    (r'^backbone\.fpn\.extra_blocks\.p(\d)', lambda match: f'neck.fpn_convs.{int(match[1]) - 3}.conv'),
)


def flat(*values: Any) -> Tensor:
    """Return tensors and lists of tensors in one vector."""
    return torch.cat([part.flatten() for value in values for part in (value if isinstance(value, list) else [value])])


def rois(size: int) -> Tensor:
    return torch.randn(2, 256, size, size, generator=torch.Generator().manual_seed(7))


def mask_rcnn(tiny: bool, classes: int) -> Built:
    """Return torchvision's with ``classes`` rows, background first, and mmdet's with 80 classes, background last."""
    return MaskRCNN(pyramid(), classes), mmdet_model('mask-rcnn_r50_fpn.py'), pictures(tiny)


def class_rows(classes: int) -> list[int]:
    """Return which of torchvision's rows mmdet's 80 are: COCO's numbers without the gaps, or all but background."""
    return [row for row in range(1, classes) if classes == 81 or row not in COCO_GAPS]


def mask_rcnn_names(state: State, classes: int) -> dict[str, Tensor]:
    rules = (
        (r'^rpn\.head\.conv\.0\.0', 'rpn_head.rpn_conv'),
        (r'^rpn\.head\.cls_logits', 'rpn_head.rpn_cls'),
        (r'^rpn\.head\.bbox_pred', 'rpn_head.rpn_reg'),
        (r'^roi_heads\.box_head\.fc(\d)', lambda match: f'roi_head.bbox_head.shared_fcs.{int(match[1]) - 6}'),
        (r'^roi_heads\.box_predictor\.cls_score', 'roi_head.bbox_head.fc_cls'),
        (r'^roi_heads\.box_predictor\.bbox_pred', 'roi_head.bbox_head.fc_reg'),
        (r'^roi_heads\.mask_head\.(\d)\.0', r'roi_head.mask_head.convs.\1.conv'),
        (r'^roi_heads\.mask_predictor\.conv5_mask', 'roi_head.mask_head.upsample'),
        (r'^roi_heads\.mask_predictor\.mask_fcn_logits', 'roi_head.mask_head.conv_logits'),
    )
    result = renamed(state, *BACKBONE, *rules)
    rows = class_rows(classes)
    for kind in ('weight', 'bias'):
        result[f'roi_head.bbox_head.fc_cls.{kind}'] = result[f'roi_head.bbox_head.fc_cls.{kind}'][[*rows, 0]]
        boxes = result[f'roi_head.bbox_head.fc_reg.{kind}']
        result[f'roi_head.bbox_head.fc_reg.{kind}'] = boxes.unflatten(0, (classes, 4))[rows].flatten(0, 1)
        result[f'roi_head.mask_head.conv_logits.{kind}'] = result[f'roi_head.mask_head.conv_logits.{kind}'][rows]
    return result


def torchvision_parts(model: Any, images: Tensor, classes: int) -> Tensor:
    """Return pyramid, proposals' logits and boxes, and both heads on fixed regions, in mmdet's class order."""
    rows = class_rows(classes)
    levels = list(model.backbone(images).values())
    heads = model.roi_heads
    scores, boxes = heads.box_predictor(heads.box_head(rois(7)))
    masks = heads.mask_predictor(heads.mask_head(rois(14)))
    boxes = boxes.unflatten(1, (classes, 4))[:, rows]
    return flat(levels, *model.rpn.head(levels), scores[:, [*rows, 0]], boxes, masks[:, rows])


def mmdet_parts(model: Any, images: Tensor) -> Tensor:
    levels = list(model.extract_feat(images))
    heads = model.roi_head
    scores, boxes = heads.bbox_head(rois(7))
    return flat(levels, *map(list, model.rpn_head(levels)), scores, boxes, heads.mask_head(rois(14)))


def retinanet(tiny: bool) -> Built:
    source = RetinaNet(pyramid(2, extra_blocks=LastLevelP6P7(256, 256)), 80)
    changes = {'neck.add_extra_convs': 'on_output', 'neck.relu_before_extra_convs': True}
    return source, mmdet_model('retinanet_r50_fpn.py', **changes), pictures(tiny)


RETINANET: tuple[Rule, ...] = (
    (r'^head\.classification_head\.conv\.(\d)\.0', r'bbox_head.cls_convs.\1.conv'),
    (r'^head\.regression_head\.conv\.(\d)\.0', r'bbox_head.reg_convs.\1.conv'),
    (r'^head\.classification_head\.cls_logits', 'bbox_head.retina_cls'),
    (r'^head\.regression_head\.bbox_reg', 'bbox_head.retina_reg'),
)


def dense_levels(model: Any, images: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Return torchvision's pyramid and the feature maps before the last convolutions of both towers."""
    levels = list(model.backbone(images).values())
    heads = model.head
    return (
        levels,
        [heads.classification_head.conv(level) for level in levels],
        [heads.regression_head.conv(level) for level in levels],
    )


def retinanet_source(model: Any, images: Tensor) -> Tensor:
    levels, classes, boxes = dense_levels(model, images)
    head = model.head
    logits = [head.classification_head.cls_logits(level) for level in classes]
    return flat(levels, logits, [head.regression_head.bbox_reg(level) for level in boxes])


def dense_target(model: Any, images: Tensor) -> Tensor:
    levels = list(model.extract_feat(images))
    return flat(levels, *map(list, model.bbox_head(levels)))


def fcos(tiny: bool) -> Built:
    """Return torchvision's FCOS and mmdet's with the same choices; mmdet's five level scales have no source."""
    source = FCOS(pyramid(2, extra_blocks=LastLevelP6P7(256, 256)), 80)
    changes = {
        'neck.add_extra_convs': 'on_output',
        'neck.relu_before_extra_convs': True,
        'bbox_head': dict(
            type='FCOSHead',
            num_classes=80,
            in_channels=256,
            strides=[8, 16, 32, 64, 128],
            conv_bias=True,
            norm_on_bbox=True,
            centerness_on_reg=True,
            norm_cfg=dict(type='GN', num_groups=32),
        ),
        'type': 'FCOS',
    }
    return source, mmdet_model('retinanet_r50_fpn.py', **changes), pictures(tiny)


def fcos_names(state: State) -> dict[str, Tensor]:
    """Return mmdet's tensors: torchvision counts convolution, norm and ReLU as three places."""
    rules: tuple[Rule, ...] = (
        (
            r'^head\.(cla|reg)\w+_head\.conv\.(\d+)',
            lambda match: (
                f'bbox_head.{"cls" if match[1] == "cla" else "reg"}_convs.{int(match[2]) // 3}.'
                f'{"gn" if int(match[2]) % 3 else "conv"}'
            ),
        ),
        (r'^head\.classification_head\.cls_logits', 'bbox_head.conv_cls'),
        (r'^head\.regression_head\.bbox_reg', 'bbox_head.conv_reg'),
        (r'^head\.regression_head\.bbox_ctrness', 'bbox_head.conv_centerness'),
    )
    return renamed(state, *BACKBONE, *rules)


def fcos_source(model: Any, images: Tensor) -> Tensor:
    levels, classes, boxes = dense_levels(model, images)
    head = model.head.regression_head
    logits = [model.head.classification_head.cls_logits(level) for level in classes]
    sides = [head.bbox_reg(level).relu() * 8 * 2**index for index, level in enumerate(boxes)]
    return flat(levels, logits, sides, [head.bbox_ctrness(level) for level in boxes])


def to_resnet(tiny: bool) -> Built:
    from mmdet.models.backbones import ResNet

    return resnet50(weights=None), ResNet(50, out_indices=(3,)), pictures(tiny)


def layer4(model: Any, images: Tensor) -> Tensor:
    x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
    return model.layer4(model.layer3(model.layer2(model.layer1(x)))).flatten()


def without_head(state: State) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith('fc.')}


def mask_rcnn_pair(name: str, classes: int) -> Pair:
    return Pair(
        name,
        partial(mask_rcnn, classes=classes),
        partial(mask_rcnn_names, classes=classes),
        source_outputs=partial(torchvision_parts, classes=classes),
        target_outputs=mmdet_parts,
        refusable=r'roi_head\.(bbox_head\.fc_(cls|reg)|mask_head\.conv_logits)\.(weight|bias)',
        needs=('mmdet',),
    )


PAIRS = (
    mask_rcnn_pair('torchvision Mask R-CNN R50-FPN -> mmdet', 91),
    mask_rcnn_pair('torchvision Mask R-CNN R50-FPN, 80 classes -> mmdet', 81),
    Pair(
        'torchvision RetinaNet R50-FPN -> mmdet',
        retinanet,
        lambda state: renamed(state, *BACKBONE, *RETINANET),
        source_outputs=retinanet_source,
        target_outputs=dense_target,
        needs=('mmdet',),
    ),
    Pair(
        'torchvision FCOS R50-FPN -> mmdet',
        fcos,
        fcos_names,
        source_outputs=fcos_source,
        target_outputs=dense_target,
        needs=('mmdet',),
    ),
    Pair('torchvision ResNet-50 -> mmdet', to_resnet, without_head, source_outputs=layer4, needs=('mmdet',)),
)
