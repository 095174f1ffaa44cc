from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    build,
    distilled,
    feature_and_logit_pairs,
    kd_segmentor,
    save_weights,
    segmentor,
    stir,
)
from engine_fixtures import shared as shared
from mmengine.config import Config

from kdplugin.distill.distiller import adapters_of
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.visualization.trained_student import open_subject
from kdplugin.weights.reading.io import hash_tensors


def config(model: dict[str, Any], **more: Any) -> Config:
    return Config(dict(default_scope='mmseg', model=model, randomness=dict(seed=4), **more))


def test_a_checkpoint_gives_the_student_and_its_adapters(shared: Path, tmp_path: Path) -> None:
    trained = stir(build(kd_segmentor(shared), seed=9))
    adapters = {name: value.clone() for name, value in adapters_of(trained).state_dict().items()}
    content = {'state_dict': trained.state_dict(), 'kdplugin': {'adapters': adapters}}
    torch.save(content, tmp_path / 'iter_1.pth')
    subject = open_subject(config(kd_segmentor(shared)), str(tmp_path / 'iter_1.pth'))
    assert hash_tensors(subject.student.state_dict()) == hash_tensors(trained.state_dict())
    assert hash_tensors(adapters_of(subject.student).state_dict()) == hash_tensors(adapters)
    assert subject.untrained == frozenset()
    assert subject.state == f'student of {tmp_path / "iter_1.pth"}'
    assert not any(module.training for module in subject.student.modules())


def test_an_exported_student_has_no_trained_adapters(shared: Path, tmp_path: Path) -> None:
    file = save_weights(segmentor(), tmp_path / 'student.pth', seed=9)
    assert open_subject(config(kd_segmentor(shared)), file).untrained == {'feature'}


def test_without_a_checkpoint_it_is_the_student_of_the_seed(shared: Path) -> None:
    subject = open_subject(config(kd_segmentor(shared)), None)
    again = open_subject(config(kd_segmentor(shared)), None)
    assert hash_tensors(dict(subject.student.named_parameters())) == hash_tensors(
        dict(again.student.named_parameters())
    )
    assert subject.state == 'student as it is initialised, not yet trained'
    assert subject.untrained == {'feature'}


def test_it_is_projected_where_training_would_begin_so(shared: Path) -> None:
    hook = dict(type='kdplugin.WeightProjectionHook', source=str(shared / 'segmentor.pth'), min_coverage=0.5)
    plain = open_subject(config(kd_segmentor(shared)), None).student
    subject = open_subject(config(kd_segmentor(shared), custom_hooks=[hook]), None)
    assert subject.state == f'student projected from {shared / "segmentor.pth"}, not yet trained'
    own, theirs = subject.student.state_dict(), plain.state_dict()
    assert not torch.equal(own['backbone.conv1.weight'], theirs['backbone.conv1.weight'])
    assert torch.equal(own['decode_head.conv_seg.weight'], theirs['decode_head.conv_seg.weight'])


def test_it_is_loaded_where_training_would_begin_so(shared: Path, tmp_path: Path) -> None:
    file = save_weights(segmentor(), tmp_path / 'student.pth', seed=9)
    subject = open_subject(config(kd_segmentor(shared), load_from=file), None)
    assert hash_tensors(subject.student.state_dict()) == hash_tensors(torch.load(file)['state_dict'])
    assert subject.state == f'student from {file}, not yet trained'


def test_the_data_preprocessor_at_the_top_is_the_students(shared: Path) -> None:
    student = segmentor()
    preprocessor = dict(student.pop('data_preprocessor'), mean=[1.0, 2.0, 3.0])
    model = distilled(shared, feature_and_logit_pairs(), student=student)
    subject = open_subject(config(model, data_preprocessor=preprocessor), None)
    assert subject.student.data_preprocessor.mean.flatten().tolist() == [1.0, 2.0, 3.0]  # type: ignore[union-attr, operator]


def test_mistakes(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'Expected a model of type kdplugin.Distiller in .* but got EncoderDecoder'):
        open_subject(config(segmentor()), None)
    with pytest.raises(ConfigError, match=r'Expected a model of type kdplugin.Distiller in .* but got None'):
        open_subject(Config({}), None)
    other = save_weights(segmentor(16), tmp_path / 'wide.pth')
    with pytest.raises(CheckpointError, match=r'Expected .*wide.pth to fit the model in all \d+ tensors but'):
        open_subject(config(kd_segmentor(shared)), other)
