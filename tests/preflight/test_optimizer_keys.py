from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.optimizer_keys import check_clipping, check_groups

PLACE = 'optim_wrapper.paramwise_cfg'


def wrapper(**settings: Any) -> dict[str, Any]:
    return dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01), **settings))


@pytest.mark.parametrize(
    'clip', [None, dict(max_norm=35, norm_type=2), dict(type='value', clip_value=1.0), dict(norm_type=2)]
)
def test_keys_that_torch_takes(clip: Any) -> None:
    assert says(check_clipping, wrapper(clip_grad=clip)) == []
    assert says(check_clipping, {}) == []


@pytest.mark.parametrize(
    ('clip', 'where', 'message'),
    [
        (dict(type='value', max_norm=1.0), '.max_norm', "Did you mean 'clip_value'?"),
        (dict(max_norm=35, clip_value=2), '.clip_value', "Did you mean 'max_norm'?"),
        (dict(max_norm=35, norm_typ=2), '.norm_typ', "but got 'norm_typ'. Did you mean 'norm_type'?"),
        (dict(type='norms', max_norm=35), '.type', "Did you mean 'norm'?"),
        (dict(type='value', foreach=True), '', "but got ['foreach', 'type']. Add clip_value."),
    ],
)
def test_keys_that_torch_does_not_take(clip: dict[str, Any], where: str, message: str) -> None:
    ((level, place, told),) = says(check_clipping, wrapper(clip_grad=clip))
    assert (level, place) == ('error', f'optim_wrapper.clip_grad{where}')
    assert message in told


@pytest.mark.parametrize(
    'settings',
    [
        dict(paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.1, decay_mult=1.0)))),
        dict(
            constructor='mmseg.LearningRateDecayOptimizerConstructor',
            paramwise_cfg=dict(num_layers=12, decay_rate=0.9, decay_type='stage_wise'),
        ),
        dict(constructor='mmseg.LayerDecayOptimizerConstructor', paramwise_cfg=dict(layer_decay_rate=0.9)),
        dict(constructor='gone.Constructor', paramwise_cfg=dict(any_key=1)),
        {},
    ],
)
def test_keys_that_constructors_read(settings: dict[str, Any]) -> None:
    assert says(check_groups, wrapper(**settings)) == []


@pytest.mark.parametrize(
    ('paramwise', 'where', 'message'),
    [
        (dict(norm_decay_multi=0.0), 'norm_decay_multi', "Did you mean 'norm_decay_mult'"),
        (dict(layer_decay_rate=0.7), 'layer_decay_rate', "Add constructor='LayerDecayOptimizerConstructor'"),
        (dict(decay_rate=0.7), 'decay_rate', "Add constructor='LearningRateDecayOptimizerConstructor'"),
        (dict(custom_keys=dict(neck=dict(lr_mult=-0.1))), 'custom_keys.neck.lr_mult', 'which climbs the loss'),
        (dict(other=1), 'other', 'Remove it, or correct the name.'),
        (dict(custom_keys=dict(neck=dict(lr_mutl=0.1))), 'custom_keys.neck.lr_mutl', "Did you mean 'lr_mult'"),
        (dict(custom_keys=dict(neck=dict(lr=0.001))), 'custom_keys.neck.lr', 'Write lr_mult=0.1, the factor of lr='),
        (dict(custom_keys=dict(neck=dict(weight_decay=0.0))), 'custom_keys.neck.weight_decay', 'decay_mult, a factor'),
    ],
)
def test_keys_that_nobody_reads(paramwise: dict[str, Any], where: str, message: str) -> None:
    ((level, place, told),) = says(check_groups, wrapper(paramwise_cfg=paramwise))
    assert (level, place) == ('error', f'{PLACE}.{where}')
    assert message in told


def test_a_key_that_stock_recipes_carry_is_a_warning() -> None:
    paramwise = dict(custom_keys=dict(theta=dict(wd_mult=0.0)))
    ((level, place, told),) = says(check_groups, wrapper(paramwise_cfg=paramwise))
    assert (level, place) == ('warning', f'{PLACE}.custom_keys.theta.wd_mult')
    assert 'It is called decay_mult.' in told
