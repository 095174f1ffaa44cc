from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.monitors import better, check_patience, check_rules, monitors


def hooks(*custom: dict[str, Any], **checkpoint: Any) -> dict[str, Any]:
    default = dict(checkpoint=dict(type='CheckpointHook', **checkpoint))
    return dict(default_hooks=default, custom_hooks=list(custom))


def plateau(**settings: Any) -> dict[str, Any]:
    return dict(param_scheduler=[dict(type='ReduceOnPlateauLR', **settings)])


def stopping(name: str, **settings: Any) -> dict[str, Any]:
    return hooks(dict(type='EarlyStoppingHook', monitor=name, **settings))


def test_names_tell_which_way_is_better() -> None:
    names = ('coco/segm_mAP_50', 'mIoU', 'coco/AR@100', 'loss_bbox', 'map/FID', 'heatmap_error', 'glossiness')
    assert [better(name) for name in names] == ['greater', 'greater', 'greater', 'less', None, None, None]


def test_every_metric_that_somebody_acts_on() -> None:
    config = {**hooks(save_best=['a', 'b'], rule=['less', 'greater']), **plateau(monitor='c')}
    assert [(one.path, one.name, one.rule, one.written) for one in monitors(config)] == [
        ('default_hooks.checkpoint', 'a', 'less', True),
        ('default_hooks.checkpoint', 'b', 'greater', True),
        ('param_scheduler.0', 'c', 'less', False),
    ]


@pytest.mark.parametrize(
    'config',
    [
        hooks(save_best='mIoU'), hooks(save_best='mIoU', rule='greater'), hooks(save_best='auto', rule='less'),
        hooks(save_best=['mIoU', 'loss'], rule=['greater', 'less']), hooks(save_best='FID', rule='less'),
        plateau(monitor='coco/bbox_mAP', rule='greater'), plateau(monitor='loss'), {},
        dict(param_scheduler=[dict(type='PolyLR')]),
    ],
)  # fmt: skip
def test_rules_that_keep_the_better(config: dict[str, Any]) -> None:
    assert says(check_rules, config) == []


@pytest.mark.parametrize(
    ('config', 'path', 'got'),
    [
        (hooks(save_best='coco/bbox_mAP', rule='less'), 'default_hooks.checkpoint', "'less'. The"),
        (hooks(save_best=['loss', 'mIoU'], rule=['less', 'less']), 'default_hooks.checkpoint', "'less'. The"),
        (stopping('mIoU', rule='less'), 'custom_hooks.0', "'less'. The"),
        (plateau(monitor='coco/bbox_mAP'), 'param_scheduler.0', "'less', the default. The"),
        (plateau(monitor='coco/bbox_mAP', rule='less'), 'param_scheduler.0', "'less'. The"),
    ],
)
def test_rules_that_keep_the_worst(config: dict[str, Any], path: str, got: str) -> None:
    ((level, where, text),) = says(check_rules, config)
    assert (level, where) == ('error', f'{path}.rule')
    assert got in text
    assert "write rule='greater'" in text


@pytest.mark.parametrize(
    ('config', 'key', 'cure'),
    [
        (stopping('coco/bbox_mAP'), 'min_delta', 'write min_delta=0.001'),
        (stopping('mIoU', min_delta=10), 'min_delta', 'write min_delta=0.1'),
        (stopping('mIoU', stopping_threshold=0.8), 'stopping_threshold', 'write 80'),
        (stopping('coco/bbox_mAP', min_delta=0.002, stopping_threshold=45), 'stopping_threshold', 'write 0.45'),
        (stopping('mIoU', patience=0), 'patience', 'write 5'),
    ],
)
def test_stops_that_come_too_early_or_never(config: dict[str, Any], key: str, cure: str) -> None:
    ((level, where, text),) = says(check_patience, config)
    assert (level, where) == ('warning', f'custom_hooks.0.{key}')
    assert cure in text


def test_stops_that_wait() -> None:
    for config in (
        stopping('mIoU', stopping_threshold=80, patience=3), stopping('coco/bbox_mAP', min_delta=0.005),
        stopping('loss'), stopping('FID', rule='less'),
    ):  # fmt: skip
        assert says(check_patience, config) == []
