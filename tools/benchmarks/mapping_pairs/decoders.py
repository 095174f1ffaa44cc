"""Segmentation with branches: torchvision's DeepLabV3, which pools last, beside mmseg's, which pools first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation import deeplabv3_resnet50

from mapping_pairs.base import Built, Pair, Rule, State, renamed


def mmseg_model(config: str, **changes: Any) -> nn.Module:
    """Build a segmentor from mmseg's own config of the model, with changes to its parts."""
    import mmseg
    from mmengine.config import Config
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    model = Config.fromfile(Path(mmseg.__file__).parent / '.mim/configs/_base_/models' / config).model
    for name, value in changes.items():
        *path, leaf = name.split('.')
        place = model
        for key in path:
            place = place[key]
        place[leaf] = value
    model.backbone.pop('pretrained', None)
    model.pretrained = None
    return MODELS.build(model)


BATCH_NORM = dict(type='BN', requires_grad=True)


def deeplab(tiny: bool) -> Built:
    """Return both; what follows the branches is another: a projection and a convolution, or one convolution."""
    changes = {
        'backbone.type': 'ResNet',
        'backbone.norm_cfg': BATCH_NORM,
        'backbone.contract_dilation': True,
        'decode_head.norm_cfg': BATCH_NORM,
        'decode_head.channels': 256,
        'decode_head.dilations': (1, 12, 24, 36),
        'decode_head.num_classes': 21,
        'auxiliary_head.norm_cfg': BATCH_NORM,
        'auxiliary_head.num_classes': 21,
    }
    source = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True)
    return source, mmseg_model('deeplabv3_r50-d8.py', **changes), torch.randn(2, 3, 64, 64)


def deeplab_names(state: State) -> dict[str, Tensor]:
    """Return mmseg's tensors, but for its layer after the branches."""
    rules: tuple[Rule, ...] = (
        (r'^classifier\.0\.convs\.4\.1', 'decode_head.image_pool.1.conv'),
        (r'^classifier\.0\.convs\.4\.2', 'decode_head.image_pool.1.bn'),
        (r'^classifier\.0\.convs\.(\d)\.0', r'decode_head.aspp_modules.\1.conv'),
        (r'^classifier\.0\.convs\.(\d)\.1', r'decode_head.aspp_modules.\1.bn'),
        (r'^classifier\.4', 'decode_head.conv_seg'),
        (r'^aux_classifier\.0', 'auxiliary_head.convs.0.conv'),
        (r'^aux_classifier\.1', 'auxiliary_head.convs.0.bn'),
        (r'^aux_classifier\.4', 'auxiliary_head.conv_seg'),
    )
    kept = {
        n: v for n, v in state.items() if not n.startswith(('classifier.0.project', 'classifier.1', 'classifier.2'))
    }
    return renamed(kept, *rules)


def branches(model: Any, images: Tensor) -> Tensor:
    levels = model.backbone(images)
    features = levels['out']
    aux = F.interpolate(model.aux_classifier(levels['aux']), images.shape[2:], mode='bilinear')
    return torch.cat([*(part(features).flatten() for part in model.classifier[0].convs), aux.flatten()])


def mmseg_branches(model: Any, images: Tensor) -> Tensor:
    levels = model.backbone(images)
    features = levels[3]
    head = model.decode_head
    pooled = F.interpolate(head.image_pool(features), features.shape[2:], mode='bilinear')
    aux = F.interpolate(model.auxiliary_head(levels), images.shape[2:], mode='bilinear')
    return torch.cat([*(part(features).flatten() for part in head.aspp_modules), pooled.flatten(), aux.flatten()])


NEEDS = ('mmseg',)
PAIRS = (Pair('torchvision DeepLabV3-R50 -> mmseg', deeplab, deeplab_names, branches, mmseg_branches, needs=NEEDS),)
