from __future__ import annotations

from typing import Any

import pytest
from mmengine.hooks import EMAHook
from preflight_says import says

from kdplugin.preflight.hook_settings import check_averages, check_hook_entries


def test_what_is_right_is_no_finding() -> None:
    hooks = [
        dict(type='EMAHook', momentum=0.0002, update_buffers=True, priority='NORMAL', begin_epoch=1),
        dict(type='EMAHook', ema_type='MomentumAnnealingEMA', gamma=100, priority=49),
        EMAHook(),
    ]
    for check in (check_averages, check_hook_entries):
        assert says(check, dict(custom_hooks=hooks)) == []
        assert says(check, {}) == []


@pytest.mark.parametrize(
    ('hook', 'where', 'message'),
    [
        ('EMAHook', '', "Write dict(type='EMAHook')"),
        (dict(momentum=0.1), '', "Expected a type beside ['momentum']"),
        (dict(type='EMAHook', priority='VERYHIGH'), '.priority', "Did you mean 'VERY_HIGH'"),
        (dict(type='EMAHook', priority=200), '.priority', 'a number from 0 to 100, but got 200'),
    ],
)
def test_hooks_that_the_runner_refuses(hook: Any, where: str, message: str) -> None:
    ((level, place, text),) = says(check_hook_entries, dict(custom_hooks=[hook]))
    assert (level, place) == ('error', f'custom_hooks.0{where}')
    assert message in text


@pytest.mark.parametrize(
    ('settings', 'level', 'key', 'message'),
    [
        (dict(momentum=0.9998), 'warning', 'momentum', 'write 0.0002'),
        (dict(momentum=1.0), 'error', 'momentum', 'between 0 and 1 but got 1.0'),
        (dict(momentum='0.1'), 'error', 'momentum', "got '0.1'"),
        (dict(ema_type='ExpMomentumEM'), 'error', 'ema_type', "ExpMomentumEMA'"),
        (dict(ema_type='MomentumAnnealingEMA', gamma=0), 'error', 'gamma', 'Expected a number > 0 but got 0'),
        (dict(decay=0.99), 'error', 'decay', 'Write momentum, which is 1 minus it.'),
        (dict(momentm=0.01), 'error', 'momentm', "Did you mean 'momentum'"),
    ],
)
def test_averages_that_are_none(settings: dict[str, Any], level: str, key: str, message: str) -> None:
    ((found, where, text),) = says(check_averages, dict(custom_hooks=[dict(type='EMAHook', **settings)]))
    assert (found, where) == (level, f'custom_hooks.0.{key}')
    assert message in text


@pytest.mark.parametrize(
    ('settings', 'level', 'key', 'text'),
    [
        (dict(), 'warning', 'momentum', '87% its first ones after 700 updates'),
        (dict(momentum=0.01, interval=20), 'warning', 'momentum', 'after 35 updates'),
        (dict(momentum=0.01, interval=5000), 'error', 'interval', 'write 1'),
    ],
)
def test_averages_that_are_their_first_weights(settings: dict[str, Any], level: str, key: str, text: str) -> None:
    loop = dict(type='IterBasedTrainLoop', max_iters=700)
    ((found, where, message),) = says(
        check_averages, dict(train_cfg=loop, custom_hooks=[dict(type='EMAHook', **settings)])
    )
    assert (found, where) == (level, f'custom_hooks.0.{key}')
    assert text in message


@pytest.mark.parametrize(
    'settings',
    [dict(momentum=0.01), dict(begin_iter=600), dict(ema_type='mmdet.ExpMomentumEMA'), dict(momentum=0.1, interval=50)],
)
def test_averages_that_follow_the_training(settings: dict[str, Any]) -> None:
    loop = dict(type='IterBasedTrainLoop', max_iters=700)
    hooks = [dict(type='EMAHook', **settings)]
    assert says(check_averages, dict(train_cfg=loop, custom_hooks=hooks)) == []
    assert says(check_averages, dict(train_cfg=dict(max_epochs=12), custom_hooks=[dict(type='EMAHook')])) == []
