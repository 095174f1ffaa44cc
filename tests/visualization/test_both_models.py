from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    build,
    distilled,
    distilled_detector,
    feature_and_logit_pairs,
    kd_segmentor,
    segmentor,
    teacher_of,
)
from engine_fixtures import shared as shared
from mmengine.structures import BaseDataElement

from kdplugin.distill.distiller import distillation_of
from kdplugin.errors import ConfigError, DataError
from kdplugin.visualization.both_models import chosen_pairs, look, preprocessed
from kdplugin.visualization.trained_student import Subject
from kdplugin.weights.reading.io import hash_tensors


def subject_of(model: dict[str, Any]) -> Subject:
    return Subject(build(model).eval(), 'a student', frozenset())


def item(scope: str, size: int = 48, seed: int = 0, **meta: Any) -> dict[str, Any]:
    if scope == 'mmdet':
        from mmdet.structures import DetDataSample as Sample
    else:
        from mmseg.structures import SegDataSample as Sample
    shape = (size, size)
    sample = Sample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0), **meta))
    generator = torch.Generator().manual_seed(seed)
    return dict(
        inputs=torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8), data_samples=sample
    )


def seen(model: dict[str, Any], scope: str = 'mmseg', size: int = 48) -> dict[str, Any]:
    subject = subject_of(model)
    inputs, samples = preprocessed(subject.student, item(scope, size), 'x.png')
    return {pair.name: levels for pair, levels in look(subject, subject.distillation.active, inputs, samples)}


def test_the_numbers_are_those_of_the_training_step(shared: Path) -> None:
    """1 - the cosine of the picture is the pair's own distance, which a training step logs."""
    subject = subject_of(kd_segmentor(shared))
    inputs, samples = preprocessed(subject.student, item('mmseg'), 'x.png')
    levels = {pair.name: found for pair, found in look(subject, subject.distillation.active, inputs, samples)}
    from mmengine.structures import PixelData

    samples[0].gt_sem_seg = PixelData(data=torch.zeros(1, 48, 48, dtype=torch.long))
    raw = float(subject.student(inputs, samples, mode='loss')['kd_feature_raw'])
    cosines = [level.numbers['cosine'] for level in levels['feature']]
    assert len(cosines) == 4
    assert 1 - sum(cosines) / 4 == pytest.approx(raw, abs=1e-5)
    assert levels['logits'][0].shapes == ((11, 2, 2), (11, 2, 2))


def test_a_student_that_is_its_teacher_differs_in_nothing(shared: Path) -> None:
    model = distilled(shared, feature_and_logit_pairs(), student=segmentor(16))
    subject = subject_of(model)
    subject.student.load_state_dict(teacher_of(subject.student).state_dict())
    inputs, samples = preprocessed(subject.student, item('mmseg'), 'x.png')
    for _, levels in look(subject, subject.distillation.active, inputs, samples):
        for level in levels:
            expected = {'relative error': 0, 'cosine': 1, 'energy error': 0}
            assert level.numbers == pytest.approx(expected, abs=1e-4)


def test_a_detectors_pyramid_is_seen_level_by_level(shared: Path) -> None:
    levels = seen(distilled_detector(shared), 'mmdet', 90)
    assert [level.shapes[0] for level in levels['neck']] == [
        (24, 12, 12), (24, 6, 6), (24, 3, 3), (24, 2, 2), (24, 1, 1)
    ]  # fmt: skip
    assert len(levels['cls']) == 5


def test_nothing_moves(shared: Path) -> None:
    subject = subject_of(kd_segmentor(shared))
    before = hash_tensors(subject.student.state_dict()), hash_tensors(teacher_of(subject.student).state_dict())
    inputs, samples = preprocessed(subject.student, item('mmseg'), 'x.png')
    for _, levels in look(subject, subject.distillation.active, inputs, samples):
        assert not any(level.student.requires_grad for level in levels)
    after = hash_tensors(subject.student.state_dict()), hash_tensors(teacher_of(subject.student).state_dict())
    assert before == after
    assert not any(module._forward_hooks for module in subject.student.modules())


def test_taps_that_fire_in_the_loss_alone_need_ground_truth(shared: Path) -> None:
    subject = subject_of(kd_segmentor(shared))
    object.__setattr__(subject.distillation.student_probe, 'mode', 'loss')
    inputs, samples = preprocessed(subject.student, item('mmseg'), 'x.png')
    with pytest.raises(DataError, match='Expected images with ground truth, because taps of this config fire only'):
        list(look(subject, subject.distillation.active, inputs, samples))


def test_pairs_are_chosen_by_name(shared: Path) -> None:
    distillation = distillation_of(build(kd_segmentor(shared)))
    assert distillation is not None
    assert [pair.name for pair in chosen_pairs(distillation, [], 'c.py')] == ['feature', 'logits']
    assert [pair.name for pair in chosen_pairs(distillation, ['logits', 'logits'], 'c.py')] == ['logits']
    with pytest.raises(ConfigError, match=r"Expected pairs of \['feature', 'logits'\] but got 'logit'. Did you mean"):
        chosen_pairs(distillation, ['logit'], 'c.py')


@pytest.mark.parametrize('pairs', [{}, dict(rest=dict(tap='backbone', loss=COSINE, weight=0.0))])
def test_without_pairs_there_is_nothing_to_look_at(shared: Path, pairs: dict[str, Any]) -> None:
    distillation = distillation_of(build(distilled(shared, pairs)))
    assert distillation is not None
    with pytest.raises(ConfigError, match=r'Expected pairs with a weight above 0 in c.py but got none. There is'):
        chosen_pairs(distillation, [], 'c.py')


def test_what_is_no_image_is_refused(shared: Path) -> None:
    student = subject_of(kd_segmentor(shared)).student
    student.data_preprocessor.forward = lambda data, training: dict(inputs=torch.zeros(1, 6, 3, 8, 8))  # type: ignore
    with pytest.raises(DataError, match=r'Expected preprocessed images \(N, C, H, W\) of x but got \(1, 6, 3, 8, 8\)'):
        preprocessed(student, dict(inputs=torch.zeros(3, 8, 8), data_samples=BaseDataElement()), 'x')
