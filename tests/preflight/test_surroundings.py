from __future__ import annotations

from typing import Any

import pytest
from mmengine.config import Config
from preflight_says import places, says

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.surroundings import check_colours, check_environment, check_scope

RGB, BGR = [123.675, 116.28, 103.53], [103.53, 116.28, 123.675]
STD = [58.395, 57.12, 57.375]


def test_scopes() -> None:
    assert [says(check_scope, dict(default_scope=scope)) for scope in ('mmdet', 'mmseg', 'mmengine')] == [[], [], []]
    (finding,) = says(check_scope, dict(default_scope='mmdett'))
    assert finding[:2] == ('error', 'default_scope')
    assert "Did you mean 'mmdet'?" in finding[2]
    assert places(check_scope, {}) == [('warning', 'default_scope')]


@pytest.mark.parametrize(
    ('config', 'where'),
    [
        (dict(log_level='INFOS'), 'log_level'),
        (dict(env_cfg=dict(mp_cfg=dict(mp_start_method='forks'))), 'env_cfg.mp_cfg.mp_start_method'),
        (dict(randomness=dict(seed=-1)), 'randomness.seed'),
    ],
)
def test_environment(config: dict[str, Any], where: str) -> None:
    good = dict(log_level='INFO', env_cfg=dict(mp_cfg=dict(mp_start_method='fork')), randomness=dict(seed=0))
    assert says(check_environment, good) == []
    assert places(check_environment, {**good, **config}) == [('error', where)]


@pytest.mark.parametrize(
    ('mean', 'std', 'turned', 'expected'),
    [
        (RGB, STD, True, []),
        (BGR, [1.0, 1.0, 1.0], False, []),
        (RGB, STD, False, [('warning', 'model.data_preprocessor.bgr_to_rgb')]),
        (BGR, STD, True, [('warning', 'model.data_preprocessor.bgr_to_rgb')]),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], True, [('error', 'model.data_preprocessor.mean')]),
        (RGB, [0, 0, 0], True, [('error', 'model.data_preprocessor.std')]),
        (None, None, True, []),
    ],
)
def test_colours(mean: Any, std: Any, turned: bool, expected: list[tuple[str, str]]) -> None:
    found = Findings()
    model = dict(data_preprocessor=dict(mean=mean, std=std, bgr_to_rgb=turned))
    check_colours(found, Config(dict(model=model)), model, 'model')
    assert [(one.level, one.where) for one in found] == expected
