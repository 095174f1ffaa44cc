"""A teacher in a training: how far it runs, how fast, on which images, and when not at all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    Forwards,
    build,
    detection_batch,
    detector,
    distilled,
    save_weights,
    segmentation_batch,
    segmentor,
)  # fmt: skip
from mmengine.dataset import BaseDataset
from torch import nn

from kdplugin.distill.distiller import distillation_of
from kdplugin.distill.taps import catch
from kdplugin.distill.teachers.teacher import Teacher, build_teacher
from kdplugin.errors import CheckpointError, ConfigError, TapError
from kdplugin.weights.reading.io import hash_tensors

WIDE = segmentor(16, dropout=0.5)


def teacher_of(shared: Path, taps: list[str], student: dict[str, Any] | None = None, **options: Any) -> Teacher:
    teacher = build_teacher(dict(model=WIDE, checkpoint=str(shared / 'segmentor.pth'), **options))
    teacher.learn(taps, build(student or segmentor()), [(64, 64)])
    return teacher


def ask(teacher: Teacher, taps: list[str], **changes: Any) -> dict[str, list[torch.Tensor]]:
    return teacher.outputs(taps, (), {**segmentation_batch(), **changes, 'mode': 'loss'})


def plainly(teacher: Teacher, taps: list[str], images: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    with torch.no_grad(), catch(teacher.module, taps, 'teacher') as caught:
        teacher.module(images, mode='tensor')
    return caught.tensors


@pytest.mark.parametrize('taps', [['backbone'], ['backbone.layer2', 'backbone.layer1'], ['decode_head.conv_seg']])
def test_outputs_are_the_plain_models_to_1e_5_and_fit_a_loss(shared: Path, taps: list[str]) -> None:
    teacher = teacher_of(shared, taps)
    digest = hash_tensors(teacher.module.state_dict())
    found, plain = ask(teacher, taps), plainly(teacher, taps, segmentation_batch()['inputs'])
    for tap in taps:
        assert len(found[tap]) == len(plain[tap])
        for one, other in zip(found[tap], plain[tap], strict=True):
            assert (one - other).norm() <= 1e-5 * other.norm()
            assert one.is_contiguous()
            assert not one.requires_grad
            student = torch.zeros_like(one, requires_grad=True)
            nn.functional.mse_loss(student, one).backward()
            torch.testing.assert_close(student.grad, -2 * one / one.numel())
    assert hash_tensors(teacher.module.state_dict()) == digest


def test_nothing_after_the_deepest_tap_runs(shared: Path) -> None:
    teacher = teacher_of(shared, ['backbone.layer2', 'backbone.layer1'])
    last, head = Forwards(teacher.module.backbone.layer3), Forwards(teacher.module.decode_head.conv_seg)
    ask(teacher, ['backbone.layer2', 'backbone.layer1'])
    assert (last.count, head.count) == (0, 0)
    plainly(teacher, ['backbone'], segmentation_batch()['inputs'])
    assert (last.count, head.count) == (1, 1)


def test_a_detectors_head_ends_with_its_last_level_and_needs_no_ground_truth(shared: Path) -> None:
    config = dict(model=detector(16, 24), checkpoint=str(shared / 'detector.pth'))
    student, batch = build(detector()), detection_batch()
    for sample in batch['data_samples']:
        del sample.gt_instances
    teacher = build_teacher(config)
    teacher.learn(['bbox_head.gfl_cls', 'neck'], student, [(64, 64)])
    assert teacher.calls == {'neck': 1, 'bbox_head.gfl_cls': 5}
    boxes = Forwards(teacher.module.bbox_head.gfl_reg)
    found = teacher.outputs(['bbox_head.gfl_cls'], (batch['inputs'], batch['data_samples'], 'loss'), {})
    assert [tensor.shape[-1] for tensor in found['bbox_head.gfl_cls']] == [16, 8, 4, 2, 1]
    assert boxes.count == 4
    head = Forwards(teacher.module.bbox_head)
    assert len(teacher.outputs(['neck'], (batch['inputs'],), {})['neck']) == 5
    assert head.count == 0


def test_a_tap_that_runs_another_number_of_times_is_an_error_or_runs_to_the_end(shared: Path) -> None:
    """Never silently fewer tensors."""
    teacher = teacher_of(shared, ['decode_head.conv_seg'])
    layer = teacher.module.decode_head
    once = layer.cls_seg
    layer.cls_seg = lambda features: [once(features) for _ in range(len(features))][-1]
    ask(teacher, ['decode_head.conv_seg'])
    teacher.learn(['decode_head.conv_seg'], build(segmentor()), [(64, 64)])
    assert teacher.calls is None
    assert len(ask(teacher, ['decode_head.conv_seg'])['decode_head.conv_seg']) == 2
    layer.cls_seg = lambda features: [once(features) for _ in range(2)][-1]
    teacher.learn(['decode_head.conv_seg'], build(segmentor()), [(64, 64)])
    assert teacher.calls == {'decode_head.conv_seg': 2}
    layer.cls_seg = once
    with pytest.raises(TapError, match=r"'decode_head\.conv_seg' 1 times instead of 2"):
        ask(teacher, ['decode_head.conv_seg'])


def test_an_exception_leaves_the_teacher_as_it_was(shared: Path) -> None:
    teacher = teacher_of(shared, ['backbone'])
    digest, expected = hash_tensors(teacher.module.state_dict()), ask(teacher, ['backbone'])
    with pytest.raises(RuntimeError, match='expected input'):
        ask(teacher, ['backbone'], inputs=torch.zeros(1, 2, 48, 48))
    assert not any(module._forward_hooks for module in teacher.module.modules())
    assert hash_tensors(teacher.module.state_dict()) == digest
    for one, other in zip(ask(teacher, ['backbone'])['backbone'], expected['backbone'], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_the_teacher_alone_runs_in_half_precision(shared: Path, precision: str) -> None:
    teacher = teacher_of(shared, ['backbone'], precision=precision)
    found, plain = ask(teacher, ['backbone']), plainly(teacher, ['backbone'], segmentation_batch()['inputs'])
    assert found['backbone'][-1].dtype == getattr(torch, precision)
    difference = (found['backbone'][-1].float() - plain['backbone'][-1]).norm() / plain['backbone'][-1].norm()
    assert 1e-5 < difference < 0.1
    assert not torch.is_autocast_enabled('cpu')


def test_options_in_the_config_reach_a_training_step(shared: Path) -> None:
    config = distilled(shared, dict(a=dict(tap='backbone', loss=COSINE)))
    config['teacher'].update(precision='bfloat16', fuse=True, channels_last=False)
    model = build(config).train()
    speed = model._distillation.teacher.speed
    assert str(speed) == 'bfloat16, folded'
    losses = model(**segmentation_batch(), mode='loss')
    assert losses['kd_a_raw'].dtype == torch.float32
    losses['loss_kd_a'].backward()
    with pytest.raises(ConfigError, match=r"got 'precison'\. Did you mean 'precision'"):
        build({**config, 'teacher': dict(config['teacher'], precison='float16')})


@pytest.mark.slow
def test_a_compiled_teacher_says_the_same(shared: Path) -> None:
    torch._dynamo.reset()
    taps = ['backbone.layer1']
    teacher = teacher_of(shared, taps, compile=True)
    digest, before = hash_tensors(teacher.module.state_dict()), torch._dynamo.utils.counters['frames']['ok']
    for size in (48, 64):
        batch = segmentation_batch(size)
        found = torch.compiler.disable(teacher.outputs)(taps, (), dict(batch, mode='loss'))
        plain = plainly(teacher, taps, batch['inputs'])
        for tap in taps:
            (one,), (other,) = found[tap], plain[tap]
            assert (one - other).norm() <= 1e-5 * other.norm()
    assert torch._dynamo.utils.counters['frames']['ok'] > before
    assert hash_tensors(teacher.module.state_dict()) == digest


def test_own_preprocessing_is_applied_in_a_step(shared: Path) -> None:
    """The student sees BGR without normalisation, the teacher what it was trained on."""
    student = segmentor()
    student['data_preprocessor'] = dict(student['data_preprocessor'], mean=None, std=None, bgr_to_rgb=False)
    raw = torch.randint(0, 256, (2, 3, 48, 48)).float()
    teacher = teacher_of(shared, ['backbone'], student, preprocess='own', fuse=False, channels_last=False)
    theirs = build(WIDE).data_preprocessor
    seen = (raw[:, [2, 1, 0]] - theirs.mean) / theirs.std
    found, plain = ask(teacher, ['backbone'], inputs=raw), plainly(teacher, ['backbone'], seen)
    torch.testing.assert_close(found['backbone'][0], plain['backbone'][0], rtol=1e-4, atol=1e-4)


def test_the_warning_goes_away_with_own(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr('kdplugin.distill.distiller.print_log', lambda message, **_: said.append(message))
    student = segmentor()
    student['data_preprocessor'] = dict(student['data_preprocessor'], bgr_to_rgb=False)
    config = distilled(shared, dict(a=dict(tap='backbone', loss=COSINE)), student)
    build(config)
    assert ['channel_conversion False and True' in one for one in said] == [True]
    config['teacher']['preprocess'] = 'own'
    build(config)
    assert len(said) == 1


def test_a_teacher_of_its_own_size(shared: Path) -> None:
    teacher = teacher_of(shared, ['backbone'], input_size=(96, 64))
    assert ask(teacher, ['backbone'])['backbone'][0].shape[-2:] == (24, 16)
    teacher = teacher_of(shared, ['backbone'], scale=2.0)
    assert ask(teacher, ['backbone'])['backbone'][0].shape[-2:] == (24, 24)


def test_a_teacher_of_its_own_size_needs_taps_without_ground_truth(shared: Path) -> None:
    with pytest.raises(ConfigError, match=r"fire without ground truth, .* but \['decode_head\.loss_decode'\] fire"):
        teacher_of(shared, ['decode_head.loss_decode'], scale=2.0)


def test_the_loaded_module_follows_the_batch_when_it_is_asked_for(shared: Path) -> None:
    """A folded copy runs; what it stands for moves when somebody needs it."""
    teacher = teacher_of(shared, ['backbone'])
    meta = torch.device('meta')
    assert teacher.module.backbone.conv1.weight.device.type == 'cpu'
    inputs = segmentation_batch()['inputs'].to(meta)
    assert ask(teacher, ['backbone'], inputs=inputs, data_samples=None)['backbone'][0].device == meta
    folded = teacher._module.backbone.conv1
    assert folded.weight.device.type == 'cpu'
    assert teacher.module.backbone.conv1 is folded
    assert folded.weight.device == meta


def test_weights_that_folded_ones_stand_for_are_let_go_and_read_again(shared: Path) -> None:
    before = hash_tensors(build_teacher(dict(model=WIDE, checkpoint=str(shared / 'segmentor.pth'))).module.state_dict())
    teacher = teacher_of(shared, ['backbone'])
    found = ask(teacher, ['backbone'])
    held = sum(parameter.numel() for parameter in teacher._module.backbone.parameters())
    assert held < 0.01 * teacher.parameters
    assert hash_tensors(teacher.module.state_dict()) == before
    for one, other in zip(found['backbone'], ask(teacher, ['backbone'])['backbone'], strict=True):
        assert torch.equal(one, other)


def test_a_training_lets_them_go(shared: Path) -> None:
    model = build(distilled(shared, dict(a=dict(tap='backbone', loss=COSINE))))
    teacher = distillation_of(model).teacher
    model(**segmentation_batch(), mode='loss')
    assert not teacher._module.backbone.layer1[0].conv1.weight.numel()


def test_weights_are_not_read_again_from_another_file(shared: Path, tmp_path: Path) -> None:
    file = tmp_path / 'teacher.pth'
    shutil.copy(shared / 'segmentor.pth', file)
    teacher = build_teacher(dict(model=WIDE, checkpoint=str(file)))
    teacher.learn(['backbone'], build(segmentor()), [(64, 64)])
    ask(teacher, ['backbone'])
    save_weights(WIDE, file, seed=5)
    with pytest.raises(CheckpointError, match='to be the file that was loaded at the start but it was changed'):
        teacher.module  # noqa: B018


def dataset(*transforms: Any) -> BaseDataset:
    return BaseDataset(lazy_init=True, serialize_data=False, pipeline=list(transforms))


def test_with_all_outputs_on_disk_the_teacher_is_not_run(shared: Path, tmp_path: Path) -> None:
    options = dict(cache=dict(dir=str(tmp_path), max_bytes='10MB'))
    teacher = teacher_of(shared, ['backbone'], **options)
    teacher.open_cache(dataset(dict(type='LoadImageFromFile')))
    runs = Forwards(teacher.module)
    first = ask(teacher, ['backbone'])
    again = teacher_of(shared, ['backbone'], **options)
    again.open_cache(dataset(dict(type='LoadImageFromFile')))
    rerun = Forwards(again.module)
    second = ask(again, ['backbone'])
    assert (runs.count, rerun.count) == (1, 0)
    assert all(torch.equal(one, other) for one, other in zip(first['backbone'], second['backbone'], strict=True))


@pytest.mark.parametrize('change', ['weights', 'transforms', 'preprocess', 'scale', 'precision', 'student', 'model'])
def test_a_cache_of_something_else_is_not_read(shared: Path, tmp_path: Path, change: str) -> None:
    options: dict[str, Any] = dict(cache=dict(dir=str(tmp_path), max_bytes='10MB'))
    teacher = teacher_of(shared, ['backbone'], **options)
    teacher.open_cache(dataset())
    ask(teacher, ['backbone'])
    student, model, checkpoint, pipeline = segmentor(), WIDE, str(shared / 'segmentor.pth'), dataset()
    if change == 'weights':
        checkpoint = save_weights(WIDE, tmp_path / 'other.pth', seed=9)
    elif change == 'transforms':
        pipeline = dataset(dict(type='LoadImageFromFile'))
    elif change == 'student':
        student['data_preprocessor'] = dict(student['data_preprocessor'], bgr_to_rgb=False)
    elif change == 'model':
        model = segmentor(16, dropout=0.4)
    else:
        options[change] = dict(preprocess='own', scale=1.5, precision='bfloat16')[change]
    other = build_teacher(dict(model=model, checkpoint=checkpoint, **options))
    other.learn(['backbone'], build(student), [(64, 64)])
    other.open_cache(pipeline)
    runs = Forwards(other.module)
    ask(other, ['backbone'])
    assert runs.count == 1


def test_a_random_pipeline_is_refused_with_the_reason(shared: Path, tmp_path: Path) -> None:
    teacher = teacher_of(shared, ['backbone'], cache=dict(dir=str(tmp_path / 'c'), max_bytes='1MB'))
    pipeline = dataset(dict(type='LoadImageFromFile'), dict(type='mmseg.RandomFlip', prob=0.5))
    message = r'same image each time, .* but got mmseg\.RandomFlip\(prob=0\.5\)\. Remove them, or remove teacher\.cache'
    with pytest.raises(ConfigError, match=message):
        teacher.open_cache(pipeline)
    assert teacher.cache is None
    assert not (tmp_path / 'c').exists()


def test_taps_that_mix_images_are_refused(shared: Path, tmp_path: Path) -> None:
    teacher = teacher_of(shared, ['decode_head.loss_decode'], cache=dict(dir=str(tmp_path / 'c'), max_bytes='1MB'))
    with pytest.raises(ConfigError, match=r'one entry for each image, .* Tap other modules'):
        teacher.open_cache(dataset())


def test_without_a_cache_any_pipeline_is_fine(shared: Path) -> None:
    teacher = teacher_of(shared, ['backbone'])
    teacher.open_cache(dataset(dict(type='mmseg.RandomFlip', prob=0.5)))
    assert teacher.cache is None
