from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.pair_phases import check_idle_weights, check_phases

EPOCHS, ITERATIONS = dict(by_epoch=True, max_epochs=12), dict(by_epoch=False, max_iters=700)
CONSTANT, LINEAR = dict(kind='constant', start=1.0), dict(kind='linear', start=1.0, stop=0.0)


def config(loop: dict[str, Any], weight: Any = 1.0, **model: Any) -> dict[str, Any]:
    pairs = dict(mid=dict(tap='neck', weight=weight), other=dict(tap='head'))
    return dict(train_cfg=loop, model=dict(type='kdplugin.Distiller', pairs=pairs, **model))


@pytest.mark.parametrize(
    'whole',
    [
        config(ITERATIONS), config(ITERATIONS, CONSTANT), config(ITERATIONS, dict(CONSTANT, end=700)),
        config(ITERATIONS, [dict(CONSTANT, start=0.0, end=300), CONSTANT]),
        config(ITERATIONS, [dict(CONSTANT, end=300), dict(CONSTANT, start=0.0)]),
        config(ITERATIONS, dict(LINEAR, begin=5, end=10)), config(EPOCHS, LINEAR),
        config(EPOCHS, dict(LINEAR, begin=0, end=12, by_epoch=True)), config(EPOCHS, dict(LINEAR, end=500)),
        config(EPOCHS, 'much'), dict(model=dict(type='GFL')), {},
        config(EPOCHS, teachers=dict(a=dict(weight=0.5), b=dict())), config(EPOCHS, 0),
    ],
)  # fmt: skip
def test_weights_that_do_what_is_written(whole: dict[str, Any]) -> None:
    assert says(check_phases, whole) == []
    assert says(check_idle_weights, whole) == []


@pytest.mark.parametrize(
    ('whole', 'where', 'cure'),
    [
        (config(ITERATIONS, dict(CONSTANT, begin=300)), 'pairs.mid.weight.begin', 'start=0, end=300), dict('),
        (config(ITERATIONS, dict(CONSTANT, end=300)), 'pairs.mid.weight.end', 'write stop_after=300 beside weight'),
        (config(EPOCHS, [dict(CONSTANT, begin=2, by_epoch=True)]), 'pairs.mid.weight.0.begin', 'end=2, by_epoch=True)'),
        (config(ITERATIONS, task_weight=dict(CONSTANT, end=300)), 'task_weight.end', 'write a phase of 0 after it'),
        (config(EPOCHS, dict(LINEAR, begin=0, end=12)), 'pairs.mid.weight', 'Write by_epoch=True in it'),
        (config(EPOCHS, task_weight=dict(LINEAR, begin=0, end=8)), 'task_weight', 'first epoch of 12 is'),
        (config(EPOCHS, [dict(CONSTANT, end=4), LINEAR]), 'pairs.mid.weight', '1 until iteration 4, then linear'),
    ],
)
def test_phases_without_effect(whole: dict[str, Any], where: str, cure: str) -> None:
    ((level, place, text),) = says(check_phases, whole)
    assert (level, place) == ('warning', f'model.{where}')
    assert cure in text


@pytest.mark.parametrize(
    ('whole', 'where', 'cure'),
    [
        (config(EPOCHS, teachers=dict(old=dict(weight=0), new={})), 'teachers.old.weight', 'remove the teacher'),
        (config(EPOCHS, dict(LINEAR, start=0.0)), 'pairs.mid.weight', 'correct start or stop'),
    ],
)
def test_weights_of_nothing(whole: dict[str, Any], where: str, cure: str) -> None:
    ((level, place, text),) = says(check_idle_weights, whole)
    assert (level, place) == ('warning', f'model.{where}')
    assert cure in text
