"""What the teacher sees: its own preprocessor applied to the raw images, on the student's padded batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from engine_fixtures import build, detector, segmentor
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from kdplugin.distill.teachers.preprocessing import (
    Preprocessing,
    TeacherInput,
    input_mistakes,
    preprocessing_difference,
    preprocessing_warning,
    renormalised,
)
from kdplugin.errors import ConfigError

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0])
HALF = dict(mean=[127.5], std=[127.5])
KINDS: dict[str, dict[str, Any]] = dict(
    rgb=dict(IMAGENET, bgr_to_rgb=True),
    bgr=dict(CAFFE, bgr_to_rgb=False),
    gray=dict(HALF, rgb_to_bgr=True),
    raw=dict(pad=114),
    padded=dict(IMAGENET, bgr_to_rgb=True, pad=3),
)


def preprocessor(family: str, kind: str) -> nn.Module:
    settings = dict(KINDS[kind])
    pad = settings.pop('pad', 0)
    if family == 'mmdet':
        return MODELS.build(dict(settings, type='mmdet.DetDataPreprocessor', pad_size_divisor=8, pad_value=pad))
    return MODELS.build(dict(settings, type='mmseg.SegDataPreProcessor', size=(24, 32), pad_val=pad))


def samples_of(family: str, images: list[Tensor]) -> list[Any]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for image in images:
        sample = (DetDataSample if family == 'mmdet' else SegDataSample)(metainfo=dict(img_shape=image.shape[1:]))
        if family == 'mmseg':
            sample.gt_sem_seg = PixelData(data=torch.zeros(1, *image.shape[1:], dtype=torch.long))
        samples.append(sample)
    return samples


def preprocessed(family: str, kind: str) -> tuple[Tensor, list[Any]]:
    """Return two raw images, smaller than their batch, as a real preprocessor hands them to its model."""
    generator = torch.Generator().manual_seed(3)
    shapes = ((3, 17, 30), (3, 22, 9))
    images = [torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes]
    data = dict(inputs=images, data_samples=samples_of(family, images))
    out = preprocessor(family, kind)(copy.deepcopy(data), training=True)
    return out['inputs'], out['data_samples']


def model_with(family: str, kind: str) -> nn.Module:
    model = nn.Module()
    model.data_preprocessor = preprocessor(family, kind)
    return model


@pytest.mark.parametrize('family', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('teacher', KINDS)
@pytest.mark.parametrize('student', KINDS)
def test_own_is_what_the_teachers_preprocessor_makes_of_the_raw_images(family: str, student: str, teacher: str) -> None:
    (ours, samples), (theirs, _) = preprocessed(family, student), preprocessed(family, teacher)
    assert ours.shape == theirs.shape
    view = TeacherInput(preprocess='own').between(model_with(family, student), model_with(family, teacher))
    before = ours.clone()
    images, same = view(ours, samples)
    torch.testing.assert_close(images, theirs, rtol=1e-5, atol=2e-5 * float(theirs.abs().max()))
    assert torch.equal(ours, before)
    assert same is samples
    assert (images is ours) == (student == teacher)


def test_without_data_samples_there_is_no_padding_to_find() -> None:
    ours, theirs = (Preprocessing.of(model_with('mmdet', kind)) for kind in ('rgb', 'raw'))
    images = torch.zeros(1, 3, 2, 2)
    expected = torch.tensor(IMAGENET['mean']).flip(0).reshape(1, 3, 1, 1).expand_as(images)
    torch.testing.assert_close(renormalised(images, None, ours, theirs), expected)


def test_half_precision_stays() -> None:
    ours, theirs = (Preprocessing.of(model_with('mmdet', kind)) for kind in ('rgb', 'bgr'))
    assert renormalised(torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16), None, ours, theirs).dtype == torch.bfloat16


def test_the_students_images_are_the_default() -> None:
    view = TeacherInput().between(model_with('mmdet', 'rgb'), model_with('mmdet', 'bgr'))
    images = torch.zeros(1, 3, 4, 4)
    assert view(images, None) == (images, None)


@pytest.mark.parametrize(
    ('config', 'size'), [(dict(input_size=(20, 30)), (20, 30)), (dict(scale=2), (16, 24)), (dict(scale=0.3), (2, 4))]
)
def test_a_size_of_its_own(config: dict[str, Any], size: tuple[int, int]) -> None:
    """Bilinear; samples keep no ground truth and tell sizes that hold for the resized batch."""
    images = torch.arange(12.0).expand(2, 3, 8, 12)
    sample = samples_of('mmdet', [images[0, :, :6]])[0]
    shapes = dict(batch_input_shape=(8, 12), pad_shape=(8, 12), scale_factor=(0.5, 0.25), img_path='x.png')
    sample.set_metainfo(shapes)
    sample.gt_instances = InstanceData(bboxes=torch.zeros(1, 4))
    before = dict(sample.metainfo)
    resized, samples = TeacherInput.parse(config)(images, [sample, sample])
    assert resized.shape == (2, 3, *size)
    assert resized[0, 0, 0, 0] < resized[0, 0, 0, -1]
    torch.testing.assert_close(resized.mean(), images.mean(), rtol=0.02, atol=0)
    meta = samples[0].metainfo
    assert meta['batch_input_shape'] == meta['pad_shape'] == size
    assert meta['img_shape'] == (round(6 * size[0] / 8), size[1])
    assert meta['scale_factor'] == pytest.approx((0.5 * size[1] / 12, 0.25 * size[0] / 8))
    assert meta['img_path'] == 'x.png'
    assert 'gt_instances' not in samples[0]
    assert sample.metainfo == before


def test_normalisation_comes_before_resizing() -> None:
    """So that padding stays padding."""
    ours, samples = preprocessed('mmdet', 'rgb')
    models = model_with('mmdet', 'rgb'), model_with('mmdet', 'raw')
    whole = TeacherInput(preprocess='own').between(*models)(ours, samples)[0]
    half = TeacherInput(preprocess='own', scale=0.5).between(*models)(ours, samples)[0]
    assert half.shape[-2:] == (12, 16)
    torch.testing.assert_close(half, nn.functional.interpolate(whole, scale_factor=0.5, mode='bilinear'))
    assert (half[1, :, :, 8:] == 114).all()


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        (dict(preprocess='teacher'), r"preprocess of \['student', 'own'\] in teacher but got 'teacher'"),
        (dict(preprocess='owm'), "got 'owm'. Did you mean 'own'"),
        (dict(input_size=640), r'input_size=\(H, W\) in teacher but got 640'),
        (dict(input_size=(640, 0)), r'input_size=\(H, W\) in teacher but got \(640, 0\)'),
        (dict(input_size=(1.5, 2)), 'Give two whole numbers > 0'),
        (dict(scale=0), 'a scale > 0 in teacher but got 0'),
        (dict(scale='2x'), "a scale > 0 in teacher but got '2x'"),
        (dict(scale=2.0, input_size=(8, 8)), 'either input_size or scale in teacher but got both'),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], message: str) -> None:
    mistakes = list(input_mistakes(config))
    with pytest.raises(ConfigError, match=message):
        raise mistakes[-1]
    assert len(mistakes) == 1


def test_good_keys_are_read() -> None:
    assert list(input_mistakes(dict(preprocess='own', input_size=[640, 480]))) == []
    view = TeacherInput.parse(dict(preprocess='own', input_size=[640, 480], cfg='x'))
    assert (view.preprocess, view.input_size, view.resizes) == ('own', (640, 480), True)
    assert not TeacherInput.parse({}).resizes


def test_a_difference_names_what_differs() -> None:
    """Channel order too; padding is not normalisation."""
    rgb, bgr, padded = (model_with('mmdet', kind) for kind in ('rgb', 'bgr', 'padded'))
    assert preprocessing_difference(rgb, padded) == preprocessing_warning(rgb, rgb) == ''
    assert preprocessing_difference(rgb, bgr) == (
        'mean [123.675, 116.28, 103.53] and [103.53, 116.28, 123.675]; '
        'std [58.395, 57.12, 57.375] and [1.0, 1.0, 1.0]; channel_conversion True and False'
    )
    warning = preprocessing_warning(rgb, bgr)
    assert 'to normalise images alike but got mean' in warning
    assert "or write teacher=dict(..., preprocess='own')" in warning


def test_whole_models_of_both_hosts_are_read() -> None:
    assert Preprocessing.of(build(segmentor())).channel_conversion
    assert Preprocessing.of(build(segmentor())).mean == pytest.approx((123.7, 116.3, 103.5))
    assert len(Preprocessing.of(build(detector())).std) == 3
    assert Preprocessing.of(nn.Module()) == Preprocessing()
