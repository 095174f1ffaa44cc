from __future__ import annotations

from typing import Any

import pytest
from preflight_says import places, says

from kdplugin.preflight.pair_weights import check_pair_weights

LOSS = dict(type='kdplugin.PKDLoss')
EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=12), dict(by_epoch=False, max_iters=700)


def config(loop: dict[str, Any] = EPOCHS, pair: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    pairs = dict(neck={'tap': 'neck', 'loss': LOSS, **(pair or {})})
    return dict(model=dict(type='kdplugin.Distiller', pairs=pairs, **model), train_cfg=loop)


def test_what_is_right_is_no_finding() -> None:
    for pair in (
        {}, dict(stop_after=400), dict(stop_after=8, by_epoch=True), dict(weight=dict(kind='linear', start=0, stop=1)),
        dict(target_ratio=2),
    ):  # fmt: skip
        assert says(check_pair_weights, config(pair=pair)) == []
    assert says(check_pair_weights, config(ITERATIONS, dict(warmup=5))) == []
    assert says(check_pair_weights, config(alpha=dict(kind='linear', start=1.0, stop=0.5))) == []
    assert says(check_pair_weights, dict(model=dict(type='GFL'))) == []
    assert says(check_pair_weights, dict(model=dict(type='kdplugin.Distiller', pairs={}), train_cfg=EPOCHS)) == []


@pytest.mark.parametrize(
    ('pair', 'model', 'level', 'where', 'message'),
    [
        (dict(stop_after=0), {}, 'error', 'model.pairs.neck.stop_after', 'leave it out'),
        (dict(stop_after=8), {}, 'warning', 'model.pairs.neck.stop_after', 'Write by_epoch=True beside it'),
        (dict(warmup=1), {}, 'warning', 'model.pairs.neck.warmup', 'over before the first epoch of 12'),
        (dict(target_ratio=50), {}, 'warning', 'model.pairs.neck.target_ratio', 'Write 0.5 for 50 %'),
        (dict(weight=0), {}, 'warning', 'model.pairs', 'trains without its teacher'),
        ({}, dict(alpha=0), 'warning', 'model.alpha', 'trains without its teacher'),
        ({}, dict(alpha=1), 'warning', 'model.alpha', 'The labels teach nothing'),
        ({}, dict(task_weight=0), 'warning', 'model.task_weight', 'raise task_weight'),
    ],
)
def test_weights_that_do_nothing(
    pair: dict[str, Any], model: dict[str, Any], level: str, where: str, message: str
) -> None:
    ((found, place, text),) = says(check_pair_weights, config(pair=pair, **model))
    assert (found, place) == (level, where)
    assert message in text


def test_two_pairs_that_compare_the_same() -> None:
    whole = config()
    whole['model']['pairs']['again'] = dict(tap='neck', loss=LOSS, weight=3.0)
    whole['model']['pairs']['other'] = dict(tap='neck', loss=dict(type='kdplugin.CWDLoss'))
    assert places(check_pair_weights, whole) == [('warning', 'model.pairs.again')]


def test_weights_that_cannot_be_read_are_said_elsewhere() -> None:
    assert says(check_pair_weights, config(pair=dict(weight='much'), alpha='x')) == []
