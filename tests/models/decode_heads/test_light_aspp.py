"""The light ASPP head: size, strides, what reaches the logits, and mmseg's segmentor around it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.models import LightASPPHead
from kdplugin.registry import MODELS

CONFIG = Path(__file__).parents[3] / 'configs/_base_/models/mbv3s_aspp.py'
SEED_PARAMETERS = 2_516_853  # the system whose student this replaces
LIMIT = 2_900_000


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def head(**kwargs: object) -> LightASPPHead:
    torch.manual_seed(0)
    settings = {'in_channels': (16, 24, 576), 'num_classes': 21, 'norm_cfg': {'type': 'BN'}}
    return LightASPPHead(**{**settings, **kwargs})


def levels(images: int = 2, height: int = 64, width: int = 96, top_stride: int = 16) -> list[Tensor]:
    return [
        torch.randn(images, channels, height // stride, width // stride)
        for channels, stride in ((16, 4), (24, 8), (576, top_stride))
    ]


@pytest.fixture
def student() -> nn.Module:
    init_default_scope('mmseg')
    return MMSEG_MODELS.build(Config.fromfile(CONFIG).model)


def samples(labels: Tensor) -> list[SegDataSample]:
    return [
        SegDataSample(
            gt_sem_seg=PixelData(data=image[None]),
            metainfo={
                'img_shape': tuple(image.shape),
                'ori_shape': tuple(image.shape),
                'pad_shape': tuple(image.shape),
            },
        )
        for image in labels
    ]


def test_parameters_of_the_student_at_21_classes(student: nn.Module) -> None:
    assert count(student) == 2_517_365
    assert count(student.backbone) == 927_008
    assert count(student) <= LIMIT
    assert abs(count(student) - SEED_PARAMETERS) / SEED_PARAMETERS < 0.001


@pytest.mark.parametrize('top_stride', [8, 16, 32])
def test_logits_have_the_size_of_the_shallowest_level(top_stride: int) -> None:
    logits = head()(levels(top_stride=top_stride))
    assert logits.shape == (2, 21, 16, 24)


def test_every_level_and_every_parameter_reaches_the_logits() -> None:
    module, inputs = head(dropout_ratio=0), [level.requires_grad_() for level in levels()]
    module(inputs).square().mean().backward()
    assert all(level.grad.abs().sum() > 0 for level in inputs)
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


def test_in_index_chooses_levels_of_the_backbone() -> None:
    module = head(in_channels=(24, 576), in_index=(1, 2)).eval()
    inputs = levels()
    with torch.no_grad():
        logits = module(inputs)
        inputs[0] = torch.full_like(inputs[0], 100.0)
        assert torch.equal(module(inputs), logits)
    assert logits.shape == (2, 21, 8, 12)


def test_rates_reach_as_far_as_they_say() -> None:
    module = head(dilations=(1, 3)).eval()
    module.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(576, 128, 1))
    nn.init.zeros_(module.image_pool[1].weight)
    *_, top = levels(images=1, height=16 * 16, width=16 * 16)
    spot = top.clone()
    spot[..., 8, 8] += 10
    with torch.no_grad():
        changed = [(branch(spot) != branch(top)).any(dim=1)[0].nonzero() for branch in module.aspp]
    assert changed[0].tolist() == [[8, 8]]
    assert changed[1].tolist() == [[y, x] for y in (5, 8, 11) for x in (5, 8, 11)]


def test_one_image_trains() -> None:
    logits = head().train()(levels(images=1))
    assert torch.isfinite(logits).all()


def test_names_for_taps() -> None:
    names = dict(head().named_modules())
    assert {'conv_seg', 'bottleneck', 'skips.0', 'skips.1', 'decoder.0', 'decoder.1'} <= names.keys()
    assert names['skips.0'].conv.in_channels == 16
    assert names['skips.1'].conv.in_channels == 24


def test_registry_builds_it_by_its_prefixed_name() -> None:
    cfg = {'type': 'kdplugin.LightASPPHead', 'in_channels': (16, 24, 576), 'num_classes': 3}
    assert isinstance(MODELS.build(cfg), LightASPPHead)


def test_segmentor_loss_ignores_label_255(student: nn.Module) -> None:
    torch.manual_seed(0)
    student.decode_head.dropout = None
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 21, (2, 64, 96))
    labels[:, :32] = 255
    losses = student(images, samples(labels), mode='loss')
    logits = nn.functional.interpolate(student(images, mode='tensor'), size=(64, 96), mode='bilinear')
    wanted = nn.functional.cross_entropy(logits, labels, ignore_index=255)
    assert losses['decode.loss_ce'].item() == pytest.approx(wanted.item(), rel=1e-5)
    losses['decode.loss_ce'].backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_segmentor_predicts_labels_of_the_input_size(student: nn.Module) -> None:
    student.eval()
    with torch.no_grad():
        (result,) = student(
            torch.randn(1, 3, 72, 100), samples(torch.zeros(1, 72, 100, dtype=torch.long)), mode='predict'
        )
    assert result.pred_sem_seg.data.shape == (1, 72, 100)
    assert 0 <= result.pred_sem_seg.data.min() <= result.pred_sem_seg.data.max() < 21


@pytest.mark.parametrize(
    ('in_channels', 'in_index'),
    [((576,), (2,)), ((16, 24, 576), (0, 1)), ((), ())],
    ids=['one', 'unequal', 'none'],
)
def test_levels_that_do_not_fit_are_refused(in_channels: tuple[int, ...], in_index: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match='Expected at least two in_channels and one in_index for each but got'):
        head(in_channels=in_channels, in_index=in_index)
