from __future__ import annotations

from typing import Any

import pytest
from mmengine.runner import LogProcessor
from preflight_says import says

from kdplugin.preflight.log_settings import check_log

MEAN = dict(data_src='loss', method_name='mean', window_size=100)


@pytest.mark.parametrize(
    'settings',
    [
        dict(), dict(mean_pattern='.*loss.*', custom_cfg=[MEAN]), dict(custom_cfg=None),
        dict(custom_cfg=[dict(MEAN, window_size='global')], by_epoch=False),
        dict(custom_cfg=[dict(MEAN, window_size='epoch')], by_epoch=True),
    ],
)  # fmt: skip
def test_logs_that_the_runner_makes(settings: dict[str, Any]) -> None:
    LogProcessor(**settings)
    assert says(check_log, dict(log_processor=dict(type='LogProcessor', **settings))) == []
    assert says(check_log, {}) == []


@pytest.mark.parametrize(
    ('settings', 'key', 'text'),
    [
        (dict(mean_pattern='*.loss'), 'mean_pattern', 'nothing to repeat'),
        (dict(window_size='50'), 'window_size', 'Write window_size=50'),
        (dict(window_size=0), 'window_size', 'got 0'),
        (dict(custom_cfg=MEAN), 'custom_cfg', 'Expected a list of dicts'),
        (dict(custom_cfg=['loss']), 'custom_cfg.0', "but got 'loss'"),
        (dict(custom_cfg=[dict(method_name='mean')]), 'custom_cfg.0', 'Expected data_src'),
        (dict(custom_cfg=[dict(MEAN, window_size='epoch')], by_epoch=False), 'custom_cfg.0.window_size', 'that counts'),
        (dict(custom_cfg=[dict(MEAN, window_size='all')]), 'custom_cfg.0.window_size', "but got 'all'"),
    ],
)
def test_logs_that_stop_the_runner(settings: dict[str, Any], key: str, text: str) -> None:
    ((level, where, message),) = says(check_log, dict(log_processor=settings))
    assert (level, where) == ('error', f'log_processor.{key}')
    assert text in message
