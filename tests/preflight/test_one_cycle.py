from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.one_cycle import check_one_cycle


def config(lr: Any, kind: str = 'OneCycleLR', **more: Any) -> dict[str, Any]:
    optimizer = dict(type='SGD', lr=lr)
    return dict(
        optim_wrapper=dict(optimizer=optimizer),
        param_scheduler=[dict(type=kind, eta_max=0.003, by_epoch=False)],
        **more,
    )


@pytest.mark.parametrize(
    'whole',
    [
        config(0.003), config(0.003 / 25), config('x'), config(3.0, 'PolyLR'), {},
        config(0.003, auto_scale_lr=dict(enable=False, base_batch_size=64)),
        config(0.003, 'PolyLR', auto_scale_lr=dict(enable=True, base_batch_size=64)),
    ],
)  # fmt: skip
def test_rates_that_are_read(whole: dict[str, Any]) -> None:
    assert says(check_one_cycle, whole) == []


def test_rates_that_are_not_read() -> None:
    ((level, where, text),) = says(check_one_cycle, config(3e-5))
    assert (level, where) == ('warning', 'optim_wrapper.optimizer.lr')
    assert 'eta_max=0.003, but got lr=3e-05' in text
    ((level, where, text),) = says(check_one_cycle, config(0.003, auto_scale_lr=dict(enable=True)))
    assert (level, where) == ('warning', 'auto_scale_lr.enable')
    assert 'scale eta_max=0.003 by hand' in text
