from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.scheduler_time import check_scheduler_time

EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=12), dict(by_epoch=False, max_iters=700)
WARM = dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)
STEPS = dict(type='MultiStepLR', milestones=[8, 11], begin=0, end=12)
POLY, COSINE = dict(type='PolyLR', by_epoch=False), dict(type='CosineAnnealingLR')
EXPONENTIAL = dict(type='ExponentialLR', gamma=0.1)


def config(loop: dict[str, Any], *schedulers: dict[str, Any]) -> dict[str, Any]:
    return dict(train_cfg=loop, param_scheduler=list(schedulers))


@pytest.mark.parametrize(
    ('loop', 'schedulers'),
    [
        (EPOCHS, [WARM, STEPS]), (EPOCHS, [WARM, dict(STEPS, milestones=(8.0, 11.0))]),
        (EPOCHS, [dict(WARM, end=1000), dict(COSINE, begin=6, end=12, T_max=6, convert_to_iter_based=True)]),
        (EPOCHS, [dict(COSINE, begin=0, end=6, T_max=6), dict(type='ConstantLR', factor=1, begin=6, end=12)]),
        (EPOCHS, [dict(type='StepLR', step_size=4), dict(type='MultiStepLR', by_epoch=False, milestones=[900, 1200])]),
        (EPOCHS, [dict(EXPONENTIAL, gamma=0.999, by_epoch=False)]), (EPOCHS, [dict(EXPONENTIAL, gamma=0.7)]),
        (ITERATIONS, [dict(WARM, end=100), dict(POLY, begin=100, end=700)]), (ITERATIONS, [POLY]),
        (ITERATIONS, [dict(WARM, start_factor=1.0, end_factor=0.1, end=700)]),
        (ITERATIONS, [dict(type='MultiStepLR', by_epoch=False, milestones=[400, 600])]),
    ],
)  # fmt: skip
def test_schedulers_that_fill_the_training(loop: dict[str, Any], schedulers: list[dict[str, Any]]) -> None:
    assert says(check_scheduler_time, config(loop, *schedulers)) == []
    assert says(check_scheduler_time, {}) == []


@pytest.mark.parametrize(
    ('loop', 'scheduler', 'level', 'key', 'cure'),
    [
        (EPOCHS, dict(STEPS, by_epoch=False), 'error', 'by_epoch', 'milestones=[8, 11] with by_epoch=False'),
        (EPOCHS, dict(type='StepLR', step_size=8, by_epoch=False), 'error', 'by_epoch', 'write by_epoch=True'),
        (EPOCHS, dict(EXPONENTIAL, by_epoch=False), 'error', 'by_epoch', 'gamma=0.1 with by_epoch=False'),
        (EPOCHS, dict(COSINE, by_epoch=False, T_max=12), 'error', 'by_epoch', 'write by_epoch=True'),
        (EPOCHS, dict(WARM, end=2), 'warning', 'by_epoch', 'end=2 with by_epoch=False'),
        (EPOCHS, dict(STEPS, milestones=[0.6, 0.9]), 'error', 'milestones', 'For 12 epochs write [8, 11]'),
        (EPOCHS, dict(STEPS, milestones=[]), 'error', 'milestones', 'but got none. The rate never falls'),
        (EPOCHS, dict(WARM, convert_to_iter_based=True), 'error', 'convert_to_iter_based', 'remove convert_to'),
        (EPOCHS, dict(WARM, by_epoch=True, end=12), 'warning', 'end', '12 epochs of it'),
        (ITERATIONS, dict(type='LinearLR', by_epoch=False), 'warning', 'end', '700 iterations of it'),
        (dict(EPOCHS, max_epochs=36), STEPS, 'warning', 'milestones', 'write [24, 33], and set end to 36'),
        (ITERATIONS, dict(POLY, end=350), 'warning', 'end', 'set end to 700.'),
        (ITERATIONS, dict(COSINE, by_epoch=False, T_max=350, end=350), 'warning', 'end', '700, and T_max with it'),
        (ITERATIONS, dict(EXPONENTIAL, by_epoch=False), 'error', 'gamma', 'write gamma=0.99344'),
        (ITERATIONS, dict(type='StepLR', step_size=8, by_epoch=False), 'error', 'step_size', 'write step_size=466'),
    ],
)
def test_schedulers_that_count_otherwise(
    loop: dict[str, Any], scheduler: dict[str, Any], level: str, key: str, cure: str
) -> None:
    ((found, where, text),) = says(check_scheduler_time, config(loop, scheduler))
    assert (found, where) == (level, f'param_scheduler.0.{key}')
    assert cure in text


def test_factors_are_not_multiplied() -> None:
    ((level, where, text),) = says(check_scheduler_time, config(EPOCHS, WARM, dict(WARM, end=300), STEPS))
    assert (level, where) == ('warning', 'param_scheduler.1')
    assert 'param_scheduler.0 besides. Their factors are multiplied' in text
    assert (
        says(check_scheduler_time, config(EPOCHS, WARM, dict(WARM, type='mmengine.LinearLR', begin=500, end=900))) == []
    )
    other_optimizer = dict(train_cfg=EPOCHS, param_scheduler=dict(a=[WARM], b=[WARM]))
    assert says(check_scheduler_time, other_optimizer) == []


def test_a_warm_up_ends_at_the_rate_itself() -> None:
    for last, told in ((0.1, True), (1.0, False)):
        settings = [dict(type='LinearLR', start_factor=0.001, end_factor=last, by_epoch=False, end=500)]
        found = says(check_scheduler_time, dict(param_scheduler=settings))
        assert [(level, where) for level, where, _ in found] == [('warning', 'param_scheduler.0.end_factor')] * told
    down = [dict(type='LinearLR', start_factor=1.0, end_factor=0.1, by_epoch=False, end=500)]
    assert says(check_scheduler_time, dict(param_scheduler=down)) == []


def test_milestones_lie_before_the_end_of_their_scheduler() -> None:
    for end, told in ((10, True), (12, False)):
        settings = [dict(type='MultiStepLR', milestones=[8, 11], by_epoch=True, begin=0, end=end)]
        found = says(check_scheduler_time, dict(param_scheduler=settings))
        assert [(level, where) for level, where, _ in found] == [('warning', 'param_scheduler.0.milestones')] * told
        assert all('before end=10 but got [11]' in text for _, _, text in found)
