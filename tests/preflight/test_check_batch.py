from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_fixtures import COSINE, build, detector, distilled, segmentor
from engine_runs import run_config
from mmengine.registry import init_default_scope

from kdplugin.preflight.batch import check_batch, check_caches
from kdplugin.preflight.findings import Findings


def test_two_real_images_come_through_the_pipeline(shared: Path, tmp_path: Path) -> None:
    init_default_scope('mmseg')
    config = run_config(shared, tmp_path, segmentor())
    config.train_dataloader.update(batch_size=8, num_workers=4, persistent_workers=True, prefetch_factor=2)
    found = Findings()
    data, name = check_batch(found, config, build(segmentor()), True)
    assert name == 'a training batch'
    assert data['inputs'].shape == (2, 3, 48, 48)
    assert data['data_samples'][0].gt_sem_seg.data.shape == (1, 48, 48)
    assert found == []
    assert config.train_dataloader.batch_size == 8


def test_an_empty_dataset_is_an_error_and_not_an_endless_loop(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, segmentor())
    config.train_dataloader.dataset.img_suffix = '.jpg'
    for serialize in (True, False):
        config.train_dataloader.dataset.serialize_data = serialize
        found = Findings()
        check_batch(found, config, build(segmentor()), True)
        assert found[0].message.startswith('Expected images in every dataset but one found none. Check data_prefix')


def test_a_wrong_pipeline_is_an_error_and_random_images_stand_in(shared: Path, tmp_path: Path) -> None:
    config = run_config(shared, tmp_path, segmentor())
    config.train_dataloader.dataset.pipeline.insert(1, dict(type='NoTransform'))
    found = Findings()
    data, name = check_batch(found, config, build(segmentor()), True)
    assert [finding.level for finding in found] == ['error', 'note']
    assert 'Expected a registered type but NoTransform is not in the mmseg::transform registry' in found[0].message
    assert name == 'a batch of random images'
    assert data['inputs'].shape[0] == 2


@pytest.mark.parametrize('settings', [segmentor(), detector()], ids=['segmentor', 'detector'])
def test_random_images_suit_the_student(shared: Path, tmp_path: Path, settings: dict) -> None:
    found, student = Findings(), build(settings)
    data, _ = check_batch(found, run_config(shared, tmp_path, segmentor()), student, False)
    losses = student(**data, mode='loss')
    total, _ = student.parse_losses(losses)
    assert torch.isfinite(total)
    assert [finding.level for finding in found] == ['note']


def test_a_cache_needs_a_pipeline_without_chance(shared: Path, tmp_path: Path) -> None:
    model = distilled(shared, dict(a=dict(tap='backbone', loss=COSINE)))
    model['teacher']['cache'] = dict(dir=str(tmp_path / 'cache'), max_bytes='1MB')
    teachers = build(model)._distillation.teachers
    config = run_config(shared, tmp_path, segmentor())
    init_default_scope('mmseg')
    found = Findings()
    check_caches(found, config, teachers, True)
    assert [(one.level, one.where) for one in found] == [('error', 'teacher')]
    assert 'the same image each time' in found[0].message
    assert 'mmseg.RandomCrop, mmseg.RandomFlip(prob=0.5), mmseg.PhotoMetricDistortion' in found[0].message
    config.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    found = Findings()
    check_caches(found, config, teachers, True)
    assert found == []
    check_caches(found, config, teachers, False)
    assert [one.message for one in found] == [
        'not checked: whether its outputs can be kept in a cache, because there is no data.'
    ]
    assert not (tmp_path / 'cache').exists()


def test_a_loss_that_compares_images_gets_as_many_as_it_needs(shared: Path, tmp_path: Path) -> None:
    init_default_scope('mmseg')
    pairs = dict(a=dict(tap='backbone', loss=dict(type='kdplugin.RKDLoss'), weight=1.0))
    config = run_config(shared, tmp_path, distilled(shared, pairs))
    student = build(segmentor())
    for real in (True, False):
        config.train_dataloader.batch_size = 8
        data, _ = check_batch(Findings(), config, student, real)
        assert len(data['inputs']) == 3
