"""The assertions: limits, NaN, hashes."""

from __future__ import annotations

import math

import pytest

from kdplugin.production.checks import below, ends_better, equal, failures, learns, paints, starts_better


@pytest.mark.parametrize(('value', 'passed'), [(0.9, True), (1.0, False), (1.1, False), (math.nan, False)])
def test_a_value_has_to_stay_below_its_limit(value: float, passed: bool) -> None:
    assert below('x', value, 1.0).passed is passed


def test_hashes_have_to_be_the_same_to_the_last_digit() -> None:
    assert equal('x', 'a' * 64, 'a' * 64).passed
    assert not equal('x', 'a' * 64, 'a' * 63 + 'b').passed


def test_margins() -> None:
    assert learns(0.49, 1.0).passed
    assert not learns(0.51, 1.0).passed
    assert paints(0.49, 1.0).passed
    assert not paints(0.51, 1.0).passed
    assert starts_better(0.89, 1.0).passed
    assert not starts_better(0.91, 1.0).passed
    assert ends_better(0.99, 1.0).passed
    assert not ends_better(1.0, 1.0).passed


def test_failures_are_named() -> None:
    assert failures([below('a', 0, 1), below('b', 2, 1), equal('c', 'x', 'y')]) == ['b', 'c']
    assert below('a', 0, 1).to_json() == dict(name='a', value=0, limit=1, passed=True, detail='')
