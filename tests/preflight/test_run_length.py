from __future__ import annotations

from typing import Any

import pytest
from preflight_says import places, says

from kdplugin.preflight.run_length import RunLength, check_length, check_pair_schedules, check_rates

ITERS = dict(type='IterBasedTrainLoop', max_iters=100)
EPOCHS = dict(by_epoch=True, max_epochs=12)
PLOSS = dict(type='kdplugin.PKDLoss')


def pair(loop: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return dict(
        train_cfg=loop, model=dict(type='kdplugin.Distiller', pairs=dict(a=dict(tap='x', loss=PLOSS, **settings)))
    )


def test_the_length_is_read_as_the_runner_reads_it() -> None:
    assert RunLength.of(dict(train_cfg=ITERS)) == RunLength(False, None, 100)
    assert RunLength.of(dict(train_cfg=EPOCHS)) == RunLength(True, 12, None)
    assert RunLength.of(dict(train_cfg=dict(type='mmengine.EpochBasedTrainLoop', max_epochs=3))) == RunLength(True, 3)
    assert RunLength.of(dict(train_cfg=dict(by_epoch=False, max_iters=5))) == RunLength(False, None, 5)
    assert [RunLength.of(config) for config in ({}, dict(train_cfg=5), dict(train_cfg=dict(max_epochs='x')))] == [
        None
    ] * 3
    assert str(RunLength(True, 12)) == '12 epochs'


def test_a_training_ends_and_validates() -> None:
    assert says(check_length, dict(train_cfg=dict(EPOCHS, val_interval=12), val_cfg={})) == []
    assert places(check_length, dict(train_cfg=dict(EPOCHS, val_interval=13), val_cfg={})) == [
        ('warning', 'train_cfg.val_interval')
    ]
    assert places(check_length, dict(train_cfg=dict(EPOCHS, val_interval=13))) == []
    assert places(check_length, dict(train_cfg=dict(by_epoch=True, max_epochs=0))) == [
        ('error', 'train_cfg.max_epochs')
    ]
    assert places(check_length, dict(train_cfg=dict(val_interval=1))) == [('error', 'train_cfg')]
    assert ('error', 'train_cfg.max_epochs') in places(check_length, dict(train_cfg=dict(EPOCHS, max_epochs=None)))
    assert places(check_length, dict(train_cfg=dict(by_epoch=False, max_epochs=None, max_iters=9))) == []


@pytest.mark.parametrize(
    'settings',
    [
        dict(weight=2.0), dict(warmup=99), dict(stop_after=100), dict(stop_after=60, warmup=10), dict(target_ratio=0.5),
        dict(weight=dict(kind='linear', start=1.0, stop=0.0, begin=10, end=100)),
    ],
)  # fmt: skip
def test_schedules_within_the_run_are_no_finding(settings: dict[str, Any]) -> None:
    assert says(check_pair_schedules, pair(ITERS, **settings)) == []


@pytest.mark.parametrize(
    ('settings', 'level', 'where'),
    [
        (dict(warmup=100), 'error', 'model.pairs.a.warmup'),
        (dict(warmup=50, stop_after=50), 'error', 'model.pairs.a.warmup'),
        (dict(stop_after=101), 'warning', 'model.pairs.a.stop_after'),
        (dict(stop_after=5, by_epoch=True), 'error', 'model.pairs.a'),
        (dict(weight=dict(kind='linear', start=1.0, stop=0.0, by_epoch=True, end=4)), 'error', 'model.pairs.a'),
        (dict(weight=dict(kind='linear', start=1.0, stop=0.0, begin=100, end=200)), 'error', 'model.pairs.a.weight'),
        (dict(weight=dict(kind='linear', start=1.0, stop=0.0, end=200)), 'warning', 'model.pairs.a.weight'),
        (dict(target_ratio=0.5, calibration_iters=100), 'error', 'model.pairs.a.calibration_iters'),
    ],
)
def test_schedules_beyond_the_run(settings: dict[str, Any], level: str, where: str) -> None:
    assert places(check_pair_schedules, pair(ITERS, **settings)) == [(level, where)]


def test_epochs_are_compared_with_epochs_alone() -> None:
    assert places(check_pair_schedules, pair(EPOCHS, stop_after=13, by_epoch=True)) == [
        ('warning', 'model.pairs.a.stop_after')
    ]
    assert says(check_pair_schedules, pair(EPOCHS, stop_after=9000)) == []


@pytest.mark.parametrize(
    ('scheduler', 'expected'),
    [
        (dict(type='LinearLR', by_epoch=False, begin=0, end=50), []),
        (dict(type='PolyLR', by_epoch=False, end=100), []),
        (dict(type='PolyLR', end=100), [('error', 'param_scheduler.0.by_epoch')]),
        (dict(type='PolyLR', by_epoch=False, begin=100, end=200), [('error', 'param_scheduler.0.begin')]),
        (dict(type='PolyLR', by_epoch=False, end=200), [('warning', 'param_scheduler.0.end')]),
        (dict(type='MultiStepLR', by_epoch=False, milestones=[50, 100]), [('warning', 'param_scheduler.0.milestones')]),
    ],
)
def test_rates(scheduler: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert places(check_rates, dict(train_cfg=ITERS, param_scheduler=[scheduler])) == expected
    alone = [(level, where.replace('.0', '')) for level, where in expected]
    assert places(check_rates, dict(train_cfg=ITERS, param_scheduler=scheduler)) == alone


def test_whole_floats_are_numbers_as_mmengine_takes_them() -> None:
    loop = dict(type='IterBasedTrainLoop', max_iters=573000.0, val_interval=57300.0)
    assert RunLength.of(dict(train_cfg=loop)) == RunLength(False, None, 573000)
    assert says(check_length, dict(train_cfg=loop, val_cfg={})) == []
    half = dict(loop, val_interval=0.5)
    assert places(check_length, dict(train_cfg=half, val_cfg={})) == [('error', 'train_cfg.val_interval')]


@pytest.mark.parametrize(('changes', 'late'), [([(11, 1)], False), ([(20, 1)], True), (None, True)])
def test_an_interval_that_changes_validates_in_time(changes: Any, late: bool) -> None:
    config = dict(train_cfg=dict(EPOCHS, val_interval=50, dynamic_intervals=changes), val_cfg={})
    assert places(check_length, config) == [('warning', 'train_cfg.val_interval')] * late
