"""The models whose training steps are timed: GFL R101 -> R50, and a vision transformer that teaches R50."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from step_time_rival import build_rival
from torch import Tensor, nn

import kdplugin.registry  # noqa: F401 - where mmdet's configs are
from kdplugin.config_files import parse
from kdplugin.distill.distiller import distillation_of
from kdplugin.distill.probe import synthetic_batch

GFL = 'mmdet::gfl/gfl_{}.py'
LEVELS = tuple(range(5))
WEIGHT = 10.0
PATCH = 16
Batch = tuple[Tensor, list[Any]]


@MODELS.register_module()
class EvaPyramid(BaseModule):
    """timm's EVA-02 base, and its map at double, equal and half size for a pyramid.

    Args:
        img_size: of the square input; others are possible, as a probe needs them.
        name: of timm's model.
    """

    def __init__(self, img_size: int, name: str = 'eva02_base_patch16_clip_224') -> None:
        super().__init__()
        self.vit = timm.create_model(name, pretrained=False, img_size=img_size, patch_size=PATCH, dynamic_img_size=True)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return maps (N, C, H, W) at strides 8, 16 and 32."""
        (feature,) = self.vit.forward_intermediates(images, indices=1, intermediates_only=True)
        grown = nn.functional.interpolate(feature, scale_factor=2.0, mode='nearest')
        return grown, feature, nn.functional.max_pool2d(feature, 2)


@dataclass(frozen=True)
class Case:
    """What is timed.

    Args:
        name: of the row.
        tap: path on both sides.
        teacher: 'resnet' or 'vit'.
        cached: the teacher's outputs come from disk.
    """

    name: str
    tap: str
    teacher: str = 'resnet'
    cached: bool = False

    @property
    def rivals(self) -> tuple[str, ...]:
        """MMRazor's algorithms that can distil here; its FpnTeacherDistill runs no head."""
        return ('SingleTeacherDistill', 'FpnTeacherDistill')[: 2 if self.tap == 'neck' else 1]


CASES = {
    case.name: case
    for case in (
        Case('gfl_neck', 'neck'),
        Case('gfl_head', 'bbox_head.gfl_cls'),
        Case('vit_neck', 'neck', teacher='vit'),
        Case('gfl_neck_cached', 'neck', cached=True),
    )
}


def model_config(file: str) -> dict[str, Any]:
    """Return a shipped model config without a file of weights."""
    config = parse(GFL.format(file)).model.to_dict()
    config['backbone'].pop('init_cfg', None)
    return config


def configs(case: Case, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model configs of student and teacher."""
    init_default_scope('mmdet')
    student = model_config('r50_fpn_1x_coco')
    if case.teacher == 'resnet':
        return student, model_config('r101_fpn_ms-2x_coco')
    teacher = copy.deepcopy(student)
    teacher['backbone'] = dict(type='mmengine.EvaPyramid', img_size=size)
    teacher['neck'] |= dict(in_channels=[768] * 3, start_level=0)
    return student, teacher


def build_plain(config: dict[str, Any]) -> nn.Module:
    return MODELS.build(copy.deepcopy(config))


def build_ours(
    case: Case, student: dict[str, Any], teacher: dict[str, Any], checkpoint: str, options: dict[str, Any]
) -> nn.Module:
    """Build the student that distils with kdplugin: CWD at the tap, as the rival."""
    pair = dict(tap=case.tap, loss=dict(type='kdplugin.CWDLoss', ignore_index=None), weight=WEIGHT * len(LEVELS))
    source = dict(model=copy.deepcopy(teacher), checkpoint=checkpoint, **options)
    settings = dict(student=copy.deepcopy(student), teacher=source, pairs=dict(cwd=pair))
    model = MODELS.build(dict(type='kdplugin.Distiller', **settings))
    if case.cached:  # the Runner's hook does so
        for each in distillation_of(model).teachers.values():  # type: ignore[union-attr]
            each.open_cache(BaseDataset(pipeline=[dict(type='mmcv.LoadImageFromFile')], lazy_init=True))
    return model


def build_theirs(
    case: Case, kind: str, checkout: Path, student: dict[str, Any], teacher: dict[str, Any], checkpoint: str
) -> nn.Module:
    """Build MMRazor's algorithm on the same models."""
    models = copy.deepcopy(student), copy.deepcopy(teacher)
    return build_rival(checkout, kind, *models, checkpoint, case.tap, LEVELS, WEIGHT)


def batch_of(size: int, images: int, device: str, student: dict[str, Any]) -> Batch:
    """Return random images and data samples for an mmdet model."""
    model = build_plain(student).to(device)
    return synthetic_batch(model, (size, size), images)


def training_step(model: Any, batch: Batch) -> Callable[[], None]:
    """Return a function that takes one whole step: losses, gradients, optimizer."""
    model.train()
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-6, momentum=0.9)

    def step() -> None:
        loss, _ = model.parse_losses(model(*batch, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def teacher_forward(case: Case, model: Any, batch: Batch) -> Callable[[], None]:
    """Return a function that runs a teacher eagerly to the tap."""
    model.eval()

    @torch.no_grad()
    def forward() -> None:
        if case.tap == 'neck':
            model.extract_feat(batch[0])
        else:
            model(*batch, mode='tensor')

    return forward
