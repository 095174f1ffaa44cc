from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import detector, segmentor
from mmengine.registry import init_default_scope
from preflight_says import says

from kdplugin.preflight.config_types import check_model_types, check_types, settings_at
from kdplugin.preflight.findings import Findings

LOAD = dict(type='LoadImageFromFile')


@pytest.fixture(autouse=True)
def scope() -> None:
    init_default_scope('mmdet')


def changed(path: str, value: Any) -> dict[str, Any]:
    config = dict(
        model=detector(),
        train_dataloader=dict(
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dict(
                type='CocoDataset', ann_file='a.json',
                pipeline=[LOAD, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')],
            ),
        ),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), paramwise_cfg={}),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, begin=0, end=5)],
        custom_hooks=[dict(type='EMAHook', priority=49)],
        train_cfg=dict(by_epoch=True, max_epochs=1),
    )  # fmt: skip
    *parents, last = path.split('.')
    node = settings_at(config, '.'.join(parents)) if parents else config
    if path:
        node[int(last) if isinstance(node, list) else last] = value
    return config


def test_a_good_config_is_no_finding() -> None:
    assert says(check_types, changed('', None)) == []
    init_default_scope('mmseg')
    assert says(check_types, dict(model=segmentor(auxiliary=True, norm='SyncBN'))) == []


@pytest.mark.parametrize(
    ('path', 'value', 'where', 'part'),
    [
        ('model.backbone.dept', 18, 'model.backbone.dept', "in ResNet but got 'dept'. Did you mean 'depth'"),
        ('model.bbox_head.feat_channel', 8, 'model.bbox_head.feat_channel', "Did you mean 'feat_channels'"),
        ('model.bbox_head.loss_dfl.weight', 8, 'model.bbox_head.loss_dfl.weight', 'in DistributionFocalLoss'),
        ('model.backbone.type', 'ResNett', 'model.backbone.type', "but got 'ResNett'. Did you mean 'ResNet'"),
        ('model.backbone.type', 5, 'model.backbone', 'Expected type to be a name or a class but got 5'),
        ('model.backbone.type', 'gone.Net', 'model.backbone.type', 'Expected a package with a registry'),
        ('train_dataloader.dataset.type', 'ResNet', 'train_dataloader.dataset.type', 'that the dataset registry of'),
        ('train_dataloader.dataset.pipeline.1', dict(type='RandomFlip', flip_ratio=0.5),
         'train_dataloader.dataset.pipeline.1.flip_ratio', 'It is called prob now.'),
        ('train_dataloader.dataset.pipeline.1', dict(type='RandomCrop'),
         'train_dataloader.dataset.pipeline.1', 'Expected crop_size in RandomCrop but got none'),
        ('optim_wrapper.optimizer.clip_grad', {}, 'optim_wrapper.optimizer.clip_grad', 'It belongs into optim'),
        ('optim_wrapper.optimizer._delete_', True, 'optim_wrapper.optimizer._delete_', 'Remove _delete_.'),
        ('custom_hooks.0', dict(type='CheckpointHook', max_keep_ckpt=1), 'custom_hooks.0.max_keep_ckpt',
         "Did you mean 'max_keep_ckpts'"),
        ('train_cfg', dict(type='IterBasedTrainLoop'), 'train_cfg', 'Expected max_iters in IterBasedTrainLoop'),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_path_and_cure(path: str, value: Any, where: str, part: str) -> None:
    (level, place, message), *others = says(check_types, changed(path, value))
    assert (level, place) == ('error', where)
    assert part in message
    assert not others


def test_a_name_that_leads_to_a_program_makes_the_config_unsafe() -> None:
    found = Findings()
    check_model_types(found, dict(type='GFL', backbone=dict(type='os.system', command='true')), 'model.teacher')
    assert found.unsafe
    assert [one.where for one in found] == ['model.teacher.backbone.type']


def test_a_way_to_suppress_boxes_is_a_known_one() -> None:
    model = detector()
    assert says(check_types, dict(model=model)) == []
    model['test_cfg']['nms']['type'] = 'nmss'
    ((level, where, text),) = says(check_types, dict(model=model))
    assert (level, where) == ('error', 'model.test_cfg.nms.type')
    assert "Did you mean 'nms'" in text


def test_what_is_left_over_of_a_base_is_deleted() -> None:
    wrapped = dict(type='RepeatDataset', times=2, data_root='a', dataset=dict(type='CocoDataset', ann_file='a.json'))
    ((_, where, message),) = says(check_types, changed('train_dataloader.dataset', wrapped))
    assert where == 'train_dataloader.dataset.data_root'
    assert 'write _delete_=True in the dataset.' in message
    loop = dict(type='IterBasedTrainLoop', max_iters=10, max_epochs=1)
    ((_, where, message),) = says(check_types, changed('train_cfg', loop))
    assert where == 'train_cfg.max_epochs'
    assert 'write _delete_=True in train_cfg.' in message
    told = says(check_types, changed('train_cfg', dict(type='IterBasedTrainLoop', max_epochs=1)))
    assert told
    assert not any('_delete_' in message for _, _, message in told)


def test_a_part_that_is_initialised_otherwise_is_named() -> None:
    """As mmdet's dense heads have it by default."""
    init_default_scope('mmdet')
    settings = detector()
    layer = dict(type='Normal', std=0.01, override=dict(type='Normal', name='gfl_cls', std=0.01, bias_prob=0.01))
    settings['bbox_head']['init_cfg'] = dict(layer, layer='Conv2d')
    found = Findings()
    check_model_types(found, settings, 'model')
    assert found == []
    settings['bbox_head']['init_cfg']['override']['stdd'] = 1
    check_model_types(found, settings, 'model')
    assert [one.where for one in found] == ['model.bbox_head.init_cfg.override.stdd']
