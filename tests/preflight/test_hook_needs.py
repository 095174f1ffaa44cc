from __future__ import annotations

from typing import Any

import pytest
from mmengine.registry import init_default_scope
from preflight_says import places, says

from kdplugin.preflight.hook_needs import check_average_order, check_hook_needs

SWITCH = dict(type='YOLOXModeSwitchHook', num_last_epochs=5)
DISTILLER = dict(type='kdplugin.Distiller')


def config(*hooks: dict[str, Any], dataset: str = 'mmdet.CocoDataset', model: Any = None) -> dict[str, Any]:
    return dict(custom_hooks=list(hooks), train_dataloader=dict(dataset=dict(type=dataset)), model=model or DISTILLER)


@pytest.mark.parametrize(
    'whole',
    [
        config(SWITCH, dataset='mmdet.MultiImageMixDataset'), config(SWITCH, dataset='NoSuchDataset'), {},
        config(dict(type='MeanTeacherHook'), model=dict(type='mmdet.SoftTeacher')),
        config(dict(type='kdplugin.SavePretrainedHook'), model=dict(type='kdplugin.DiffusionDistiller')),
        config(dict(type='CheckpointHook', max_keep_ckpts=3)), config(dict(type='CheckpointHook')),
    ],
)  # fmt: skip
def test_hooks_that_find_what_they_need(whole: dict[str, Any]) -> None:
    init_default_scope('mmdet')
    assert says(check_hook_needs, whole) == []


@pytest.mark.parametrize(
    ('hook', 'key', 'text'),
    [
        (SWITCH, '', 'but got CocoDataset'),
        (dict(type='MeanTeacherHook'), '', 'whose teacher is frozen'),
        (dict(type='kdplugin.SavePretrainedHook'), '', 'a model of diffusers'),
        (dict(type='kdplugin.SafeCheckpointHook', max_keep_ckpts='3'), '.max_keep_ckpts', "but got '3'"),
        (dict(type='CheckpointHook', filename_tmpl='epoch_{epoch}.pth'), '.filename_tmpl', "Write 'epoch_{}.pth'"),
        (dict(type='CheckpointHook', filename_tmpl='epoch.pth'), '.filename_tmpl', "but got 'epoch.pth'"),
        (dict(type='CheckpointHook', max_keep_ckpts=3.0), '.max_keep_ckpts', 'Write max_keep_ckpts=3'),
    ],
)
def test_hooks_that_would_stop_the_training(hook: dict[str, Any], key: str, text: str) -> None:
    init_default_scope('mmdet')
    ((level, where, message),) = says(check_hook_needs, config(hook))
    assert (level, where) == ('error', f'custom_hooks.0{key}')
    assert text in message


@pytest.mark.parametrize(
    ('average', 'saver', 'late'),
    [
        (dict(), dict(), False), (dict(priority=49), dict(), False), (dict(priority='LOWEST'), dict(), True),
        (dict(priority=90), dict(), True), (dict(priority='no'), dict(), False),
        (dict(priority='NORMAL'), dict(priority=40), True),
    ],
)  # fmt: skip
def test_averages_are_swapped_back_before_they_are_saved(
    average: dict[str, Any], saver: dict[str, Any], late: bool
) -> None:
    hooks = dict(checkpoint=dict(type='CheckpointHook', **saver))
    whole = dict(default_hooks=hooks, custom_hooks=[dict(type='EMAHook', **average)])
    assert places(check_average_order, whole) == [('warning', 'custom_hooks.0.priority')] * late
