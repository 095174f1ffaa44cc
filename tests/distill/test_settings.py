"""Keys of the Distiller: several teachers, alpha, and everything that can be wrong between them."""

from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import COSINE

from kdplugin.distill.schedules import Moment
from kdplugin.distill.settings import distiller_mistakes, parse_task_weight, teacher_configs, teacher_weights
from kdplugin.errors import ConfigError

PAIR = dict(tap='backbone', loss=COSINE)
BIG, WIDE = dict(cfg='a.py', checkpoint='a.pth', weight=2), dict(cfg='b.py', checkpoint='b.pth')
TWO = dict(
    student=dict(type='X'), teachers=dict(big=BIG, wide=WIDE),
    pairs=dict(a=dict(PAIR, teacher='big'), b=dict(PAIR, teacher='wide')),
)  # fmt: skip
ONE = dict(student=dict(type='X'), teacher=BIG, pairs=dict(a=PAIR))


def messages(config: dict[str, Any]) -> list[str]:
    return [str(mistake) for mistake in distiller_mistakes(config)]


@pytest.mark.parametrize('config', [ONE, TWO, dict(student=dict(type='X')), dict(TWO, pairs={})])
def test_good_configs_have_no_mistakes(config: dict[str, Any]) -> None:
    assert messages(config) == []


def test_a_single_teacher_has_a_name_too_and_weights_stay_with_the_engine() -> None:
    assert teacher_configs(ONE) == dict(teacher=dict(cfg='a.py', checkpoint='a.pth'))
    assert teacher_configs(TWO) == dict(big=dict(cfg='a.py', checkpoint='a.pth'), wide=WIDE)
    assert {name: weight.peak for name, weight in teacher_weights(TWO).items()} == dict(big=2.0, wide=1.0)
    assert teacher_configs({}) == teacher_configs(dict(teachers=[1])) == {}


def test_alpha_takes_the_place_of_task_weight() -> None:
    assert parse_task_weight({})['task_weight'].peak == 1
    falling = dict(kind='linear', start=0.8, stop=0.4, end=5)
    assert parse_task_weight(dict(alpha=falling))['alpha'].value(Moment(2), 'alpha') == pytest.approx(0.6)
    assert parse_task_weight(dict(task_weight=falling))['task_weight'].value(Moment(4), 'x') == pytest.approx(0.4)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(teacher=BIG), 'Expected either teacher or teachers in kdplugin.Distiller but got both'),
        (dict(teachers=[BIG]), 'Expected teachers to be a dict of dicts by name but got ['),
        (dict(teachers=dict(big=1, wide=WIDE)), 'Expected teachers to be a dict of dicts by name but got {'),
        (dict(pairs=dict(a=dict(PAIR, teacher='bgi'), b=dict(PAIR, teacher='wide'), c=dict(PAIR, teacher='big'))),
         "teacher to be one of 'big', 'wide' in pair 'a' but got 'bgi'. Did you mean 'big'"),
        (dict(pairs=dict(a=PAIR, b=dict(PAIR, teacher='wide'), c=dict(PAIR, teacher='big'))),
         "teacher to be one of 'big', 'wide' in pair 'a' but got None"),
        (dict(pairs=dict(a=dict(PAIR, teacher='big'))), "every teacher to teach but no pair names 'wide'"),
        (dict(teachers=dict(big=dict(BIG, weight=-1), wide=WIDE)), "weight >= 0 in teacher 'big' but got -1"),
        (dict(alpha=0.5, task_weight=1.0), 'either alpha or task_weight in kdplugin.Distiller but got both'),
        (dict(alpha=1.5), 'a finite weight from 0 to 1 in alpha but got 1.5'),
    ],
)  # fmt: skip
def test_mistakes_are_told(change: dict[str, Any], message: str) -> None:
    (found,) = messages({**TWO, **change})
    assert message in found


def test_a_pair_of_a_single_teacher_names_none() -> None:
    (found,) = messages(dict(ONE, pairs=dict(a=dict(PAIR, teacher='big'))))
    assert "Expected teachers=dict(big=dict(...)) for the teacher that pair 'a' names" in found


def test_build_raises_the_first_mistake() -> None:
    from kdplugin.distill import build_distiller

    with pytest.raises(ConfigError, match='either alpha or task_weight'):
        build_distiller(**TWO, alpha=0.5, task_weight=1)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(student=dict(cfg='a.py')),
            "with a type, as student but got the keys ['cfg']. Write student=_base_.model",
        ),
        (dict(student='a.py'), "as student but got 'a.py'"),
        (dict(frozen=[None]), "a list of patterns but got [None]. Write frozen=['backbone']"),
        (dict(teacher='a.pth'), "Expected teacher to be a dict but got 'a.pth'. Write teacher=dict(cfg="),
    ],
)
def test_models_are_written_as_dicts(changes: dict[str, Any], message: str) -> None:
    (said,) = messages({**ONE, **changes})
    assert message in said
