"""Tiny real models, weights, data and batches on which the engine's contracts are proven.

Everything is mmseg's or mmdet's own: a ResNet-18 of 8 (student) or 16 (teacher) base channels on 64x64 scenes.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.datasets.digit_scenes import make_digit_scenes
from kdplugin.distill import distillation_of

torch.set_num_threads(1)

CLASSES = 11
COSINE = dict(type='kdplugin.CosineLoss')
KL = dict(type='kdplugin.KLDivergenceLoss', temperature=2.0)


def resnet(width: int, norm: str = 'BN', **changes: Any) -> dict[str, Any]:
    """Return a ResNet-18 with outputs of width, 2, 4 and 8 times width."""
    settings = dict(
        type='ResNet', depth=18, base_channels=width, stem_channels=width, norm_cfg=dict(type=norm), norm_eval=False
    )
    return dict(settings, style='pytorch', **changes)


def segmentor(
    width: int = 8, *, classes: int = CLASSES, norm: str = 'BN', dropout: float = 0.1, auxiliary: bool = False
) -> dict[str, Any]:
    """Return mmseg's FCN on a ResNet-18."""

    def head(level: int) -> dict[str, Any]:
        return dict(
            type='FCNHead', in_channels=width << level, in_index=level, channels=8, num_convs=1, num_classes=classes,
            dropout_ratio=dropout, concat_input=False, norm_cfg=dict(type=norm), align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0),
        )  # fmt: skip

    return dict(
        type='EncoderDecoder',
        _scope_='mmseg',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True,
            pad_val=0, seg_pad_val=255, size=(48, 48),
        ),
        backbone=resnet(width, norm),
        decode_head=head(3),
        auxiliary_head=head(2) if auxiliary else None,
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip


def detector(width: int = 8, neck: int = 16, classes: int = 10) -> dict[str, Any]:
    """Return mmdet's GFL on a ResNet-18 and a feature pyramid."""
    return dict(
        type='GFL',
        _scope_='mmdet',
        data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], bgr_to_rgb=True,
            pad_size_divisor=32,
        ),
        backbone=resnet(width),
        neck=dict(
            type='FPN', in_channels=[width << level for level in range(4)], out_channels=neck, start_level=1,
            add_extra_convs='on_output', num_outs=5,
        ),
        bbox_head=dict(
            type='GFLHead', num_classes=classes, in_channels=neck, stacked_convs=1, feat_channels=16,
            norm_cfg=dict(type='GN', num_groups=4),
            anchor_generator=dict(
                type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
                strides=[8, 16, 32, 64, 128],
            ),
            loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
            loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0), reg_max=8,
        ),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
        test_cfg=dict(
            nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20
        ),
    )  # fmt: skip


def build(config: dict[str, Any], seed: int = 0, initialise: bool = True) -> nn.Module:
    """Build a model config from a seed, as a Runner would."""
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(config))
    if initialise:
        model.init_weights()
    return model


def stir(model: nn.Module) -> nn.Module:
    """Move every weight and running mean a little: fresh residual branches put out zeros."""
    with torch.no_grad():
        for name, value in all_tensors(model).items():
            if value.is_floating_point() and 'running_var' not in name:
                value.add_(torch.empty_like(value).uniform_(-0.1, 0.1))
    return model


def save_weights(config: dict[str, Any], path: Path, seed: int = 1) -> str:
    """Save a model whose weights and running statistics are all its own; return the path."""
    model = stir(build(config, seed))
    torch.save({'state_dict': model.state_dict()}, path)
    return str(path)


@cache
def _shared_folder(base: Path) -> Path:
    folder = base / 'engine'
    make_digit_scenes(folder / 'digits', train=8, val=4, size=64, progress=False)
    save_weights(segmentor(16), folder / 'segmentor.pth')
    save_weights(detector(16, 24), folder / 'detector.pth', seed=2)
    return folder


@pytest.fixture(scope='session')
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with digit scenes, and weights of a wide segmentor and a wide detector to learn from."""
    return _shared_folder(tmp_path_factory.getbasetemp())


def distilled(shared: Path, pairs: dict[str, Any], student: dict[str, Any] | None = None, **more: Any) -> Any:
    """Return the config of a segmentor that learns from the shared one."""
    teacher = dict(model=segmentor(16, dropout=0.5), checkpoint=str(shared / 'segmentor.pth'))
    return dict(type='kdplugin.Distiller', student=student or segmentor(), teacher=teacher, pairs=pairs, **more)


def distilled_detector(shared: Path) -> dict[str, Any]:
    """Return the config of a detector that learns neck (five levels, with adapters) and scores from the shared one."""
    pairs = dict(
        neck=dict(tap='neck', loss=COSINE, weight=10.0), cls=dict(tap='bbox_head.gfl_cls', loss=KL, weight=5.0)
    )
    teacher = dict(model=detector(16, 24), checkpoint=str(shared / 'detector.pth'))
    return dict(type='kdplugin.Distiller', student=detector(), teacher=teacher, pairs=pairs)


def feature_and_logit_pairs() -> dict[str, Any]:
    """Return pairs of which one needs adapters (four levels) and one does not."""
    return dict(
        feature=dict(tap='backbone', loss=COSINE, weight=0.5),
        logits=dict(tap='decode_head.conv_seg', loss=KL, weight=2.0),
    )


def kd_segmentor(shared: Path, **more: Any) -> dict[str, Any]:
    """Return the config of a segmentor that learns features and logits from the shared one."""
    return distilled(shared, feature_and_logit_pairs(), **more)


def teacher_of(model: nn.Module) -> nn.Module:
    """Return the teacher that hangs on a distilled student."""
    distillation = distillation_of(model)
    assert distillation is not None
    assert distillation.teacher is not None
    return distillation.teacher.module


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, adapters included, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def segmentation_batch(size: int = 48, seed: int = 5) -> dict[str, Any]:
    """Return preprocessed random images and labels, some of them 255, as ``forward`` takes them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(seed)
    samples = []
    for _ in range(2):
        labels = torch.randint(0, CLASSES, (1, size, size), generator=generator)
        labels[:, : size // 4] = 255
        sample = SegDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size)))
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return dict(inputs=torch.randn(2, 3, size, size, generator=generator), data_samples=samples)


def detection_batch(size: int = 128, seed: int = 5) -> dict[str, Any]:
    """Return random images with two boxes each."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size), scale_factor=(1.0, 1.0))
    samples = []
    for number in range(2):
        sample = DetDataSample(metainfo=dict(shape, batch_input_shape=(size, size), img_id=number))
        boxes = torch.tensor([[8.0, 8.0, 60.0, 70.0], [50.0, 40.0, 120.0, 110.0]])
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([number, 7]))
        samples.append(sample)
    return dict(inputs=torch.randn(2, 3, size, size, generator=generator), data_samples=samples)


class Forwards:
    """Count how often a module runs."""

    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        module.register_forward_pre_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1
