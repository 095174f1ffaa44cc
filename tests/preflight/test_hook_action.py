from __future__ import annotations

from typing import Any

import pytest
from preflight_says import places, says

from kdplugin.preflight.hook_action import check_hooks, hooks_of, kind_of

ITERS = dict(type='IterBasedTrainLoop', max_iters=100)
EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=12)


def custom(*hooks: dict[str, Any], loop: dict[str, Any] = ITERS, **more: Any) -> dict[str, Any]:
    return dict(train_cfg=loop, custom_hooks=list(hooks), val_cfg={}, model=dict(type='GFL'), **more)


def test_hooks_are_listed_with_their_paths() -> None:
    config = dict(default_hooks=dict(a=dict(type='x.A'), b=None), custom_hooks=[dict(type='B'), 'no'])
    assert [(path, kind_of(hook)) for path, hook in hooks_of(config)] == [
        ('default_hooks.a', 'A'),
        ('custom_hooks.0', 'B'),
    ]


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        (custom(dict(type='EMAHook', begin_iter=99), dict(type='LoggerHook', interval=100)), []),
        (custom(dict(type='EMAHook', begin_iter=100)), [('error', 'custom_hooks.0.begin_iter')]),
        (custom(dict(type='EMAHook', begin_epoch=2)), [('error', 'custom_hooks.0.begin_epoch')]),
        (custom(dict(type='PipelineSwitchHook', switch_epoch=12), loop=EPOCHS),
         [('error', 'custom_hooks.0.switch_epoch')]),
        (custom(dict(type='YOLOXModeSwitchHook', num_last_epochs=15), loop=EPOCHS),
         [('warning', 'custom_hooks.0.num_last_epochs')]),
        (custom(dict(type='EMAHook'), dict(type='mmdet.EMAHook')), [('warning', 'custom_hooks')]),
        (custom(dict(type='LoggerHook', interval=0)), [('error', 'custom_hooks.0.interval')]),
        (custom(dict(type='LoggerHook', interval=101)), [('warning', 'custom_hooks.0.interval')]),
        (custom(dict(type='EarlyStoppingHook', monitor='mIoU')), []),
        ({**custom(dict(type='EarlyStoppingHook', monitor='mIoU')), 'val_cfg': None}, [('error', 'custom_hooks.0')]),
        (custom(dict(type='kdplugin.DistillationHook')), [('warning', 'custom_hooks.0')]),
        (custom(dict(type='WeightProjectionHook')), [('error', 'custom_hooks.0.type')]),
    ],
)  # fmt: skip
def test_hooks_that_never_act(config: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert places(check_hooks, config) == expected


@pytest.mark.parametrize(
    ('settings', 'loop', 'expected'),
    [
        (dict(interval=50, by_epoch=False), ITERS, []),
        (dict(interval=1), ITERS, [('error', 'default_hooks.checkpoint.by_epoch')]),
        (dict(interval=101, by_epoch=False), ITERS, [('warning', 'default_hooks.checkpoint.interval')]),
        (dict(interval=-1), EPOCHS, [('warning', 'default_hooks.checkpoint.interval')]),
        (dict(interval=1), EPOCHS, []),
        (dict(interval=200, by_epoch=False), EPOCHS, []),
    ],
)
def test_checkpoints(settings: dict[str, Any], loop: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    hooks = dict(checkpoint=dict(type='CheckpointHook', **settings))
    assert places(check_hooks, dict(train_cfg=loop, default_hooks=hooks)) == expected


def test_default_hooks_have_their_names() -> None:
    (finding,) = says(check_hooks, dict(train_cfg=EPOCHS, default_hooks=dict(chekpoint=dict(type='LoggerHook'))))
    assert "Did you mean 'checkpoint'" in finding[2]
    hooks = dict(default_hooks=dict(checkpoint=None, param_scheduler=None), param_scheduler=[{}])
    assert places(check_hooks, hooks) == [
        ('warning', 'default_hooks.checkpoint'),
        ('error', 'default_hooks.param_scheduler'),
    ]


SWITCH = dict(type='PipelineSwitchHook', switch_epoch=4, switch_pipeline=[])
PROJECTION = dict(type='kdplugin.WeightProjectionHook', source='a.pth')


@pytest.mark.parametrize(
    ('one', 'other', 'twice'),
    [
        (SWITCH, dict(SWITCH, switch_epoch=8), False),
        (SWITCH, SWITCH, True),
        (PROJECTION, dict(PROJECTION, target='neck'), False),
        (PROJECTION, dict(PROJECTION, target='backbone'), True),
        (dict(type='EarlyStoppingHook', monitor='a'), dict(type='EarlyStoppingHook', monitor='b'), False),
        (dict(type='EMAHook', begin_iter=1), dict(type='EMAHook', begin_iter=2), True),
    ],
)
def test_hooks_that_act_elsewhere_may_be_there_twice(one: dict[str, Any], other: dict[str, Any], twice: bool) -> None:
    assert places(check_hooks, custom(one, other, loop=EPOCHS)) == [('warning', 'custom_hooks')] * twice


def test_two_averages_undo_each_other() -> None:
    average = dict(type='EMAHook')
    ((level, where, text),) = says(check_hooks, custom(average, default_hooks=dict(ema=average)))
    assert (level, where) == ('warning', 'custom_hooks')
    assert 'default_hooks.ema besides' in text
    logger = dict(type='LoggerHook', interval=5)
    assert says(check_hooks, custom(logger, default_hooks=dict(logger=logger))) == []


def test_whole_floats_are_intervals_as_mmengine_takes_them() -> None:
    assert says(check_hooks, custom(dict(type='LoggerHook', interval=50.0))) == []
    assert places(check_hooks, custom(dict(type='LoggerHook', interval=0.5))) == [('error', 'custom_hooks.0.interval')]


@pytest.mark.parametrize(('best', 'kept'), [(None, 'Only the last epoch is saved'), ('mIoU', 'and the best are saved')])
def test_the_best_checkpoint_is_kept_too(best: str | None, kept: str) -> None:
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=20, save_best=best))
    ((_, _, text),) = says(check_hooks, dict(train_cfg=EPOCHS, default_hooks=hooks))
    assert kept in text
