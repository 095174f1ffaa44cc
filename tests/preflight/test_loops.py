from __future__ import annotations

from typing import Any

import pytest
from preflight_says import places, says

from kdplugin.preflight.loops import check_intervals, check_loop_roles

EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=12)
ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=700)


def test_loops_of_the_right_kind() -> None:
    good = dict(train_cfg=EPOCHS, val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop'))
    assert says(check_loop_roles, good) == []
    assert says(check_loop_roles, dict(train_cfg=dict(max_epochs=1), val_cfg={}, test_cfg=None)) == []
    assert says(check_loop_roles, dict(train_cfg=dict(type='MyLoop'))) == []


@pytest.mark.parametrize(
    ('key', 'loop', 'cure'),
    [
        ('train_cfg', dict(type='ValLoop'), "write type='EpochBasedTrainLoop' or"),
        ('val_cfg', EPOCHS, "write type='ValLoop'"),
        ('val_cfg', dict(type='TestLoop'), "write type='ValLoop'"),
        ('test_cfg', ITERATIONS, "write type='TestLoop'"),
    ],
)
def test_loops_of_another_kind(key: str, loop: dict[str, Any], cure: str) -> None:
    ((level, where, text),) = says(check_loop_roles, {key: loop})
    assert (level, where) == ('error', f'{key}.type')
    assert cure in text


@pytest.mark.parametrize('changes', [[(8,)], [[8, 1]], (8, 1), [('8', 1)]])
def test_changes_of_the_interval_are_pairs(changes: Any) -> None:
    loop = dict(EPOCHS, dynamic_intervals=changes)
    assert places(check_intervals, dict(train_cfg=loop)) == [('error', 'train_cfg.dynamic_intervals')]
    assert says(check_intervals, dict(train_cfg=dict(EPOCHS, dynamic_intervals=[(8, 1)]))) == []


def saving(interval: int, by_epoch: bool = False) -> dict[str, Any]:
    return dict(checkpoint=dict(type='CheckpointHook', interval=interval, by_epoch=by_epoch))


def test_validations_and_checkpoints_are_not_made_all_the_time() -> None:
    def config(interval: int, save: int, loop: dict[str, Any] = ITERATIONS) -> dict[str, Any]:
        return dict(train_cfg=dict(loop, val_interval=interval), val_cfg={}, default_hooks=saving(save))

    assert says(check_intervals, config(100, 100)) == []
    assert says(check_intervals, config(1, 1, dict(ITERATIONS, max_iters=50))) == []
    assert says(check_intervals, config(1, 1, EPOCHS)) == []
    assert says(check_intervals, dict(train_cfg=dict(ITERATIONS, val_interval=1))) == []
    found = says(check_intervals, config(1, 2))
    assert [(level, where) for level, where, _ in found] == [
        ('warning', 'train_cfg.val_interval'),
        ('warning', 'default_hooks.checkpoint.interval'),
    ]
    assert '70 makes ten' in found[0][2]
    assert 'every 2 iterations' in found[1][2]
