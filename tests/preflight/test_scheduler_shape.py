from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.scheduler_shape import check_scheduler_shapes

EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=12), dict(by_epoch=False, max_iters=700)
COSINE, LINEAR = dict(type='CosineAnnealingLR'), dict(type='LinearLR', start_factor=0.001)
CYCLE = dict(type='OneCycleLR', eta_max=0.01, by_epoch=False)
STEPS = dict(type='MultiStepLR', milestones=[8, 11])


def config(loop: dict[str, Any], *schedulers: dict[str, Any]) -> dict[str, Any]:
    return dict(
        train_cfg=loop, param_scheduler=list(schedulers), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01))
    )


def test_what_is_right_is_no_finding() -> None:
    for loop, schedulers in (
        (EPOCHS, [dict(LINEAR, by_epoch=False, begin=0, end=500), dict(STEPS, begin=0, end=12, gamma=0.1)]),
        (EPOCHS, [dict(LINEAR, begin=0, end=2), dict(COSINE, begin=2, end=12, T_max=10, eta_min=1e-5)]),
        (ITERATIONS, [dict(CYCLE, total_steps=700)]),
        (ITERATIONS, [dict(COSINE, by_epoch=False, begin=100, T_max=600)]),
        (ITERATIONS, [dict(COSINE, T_max=3)]),  # epochs of a run of iterations: said by check_rates
    ):
        assert says(check_scheduler_shapes, config(loop, *schedulers)) == []
    assert says(check_scheduler_shapes, {}) == []


@pytest.mark.parametrize(
    ('loop', 'scheduler', 'level', 'key', 'message'),
    [
        (EPOCHS, dict(STEPS, begin=8, end=4), 'error', 'end', 'Expected an end after begin=8 but got end=4'),
        (EPOCHS, dict(STEPS, milestones=8), 'error', 'milestones', 'Write milestones=[8]'),
        (EPOCHS, dict(LINEAR, begin=0, end=500), 'error', 'by_epoch', 'write by_epoch=False'),
        (EPOCHS, dict(STEPS, gamma=10), 'warning', 'gamma', 'write 0.1'),
        (EPOCHS, dict(COSINE, T_max=12, eta_min=0.1), 'warning', 'eta_min', 'below the rate of 0.01 but got 0.1'),
        (EPOCHS, dict(COSINE, T_max=6), 'warning', 'T_max', 'rises again after that: set it to 12'),
        (EPOCHS, dict(COSINE, begin=2, T_max=20), 'warning', 'T_max', 'does not come down before that: set it to 10'),
        (EPOCHS, dict(LINEAR, start_factor=0.0, end=2), 'error', 'start_factor', 'Write start_factor=0.001'),
        (EPOCHS, dict(type='ConstantLR', factor=0), 'error', 'factor', 'which rates are divided by'),
        (EPOCHS, dict(type='PolyLR', power='0.9'), 'error', 'power', "but got '0.9'. Write it without quotes"),
        (ITERATIONS, dict(CYCLE, total_steps=300), 'error', 'total_steps', 'at least 700'),
        (ITERATIONS, dict(CYCLE, total_steps=900), 'warning', 'total_steps', 'lower it'),
    ],
)
def test_rates_that_run_otherwise(
    loop: dict[str, Any], scheduler: dict[str, Any], level: str, key: str, message: str
) -> None:
    ((found, where, text),) = says(check_scheduler_shapes, config(loop, scheduler))
    assert (found, where) == (level, f'param_scheduler.0.{key}')
    assert message in text
