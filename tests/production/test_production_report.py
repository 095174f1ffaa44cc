"""What a person reads: each check with its limit, each fault with the check that had to fail, and the verdict."""

from __future__ import annotations

import json
from pathlib import Path

from kdplugin.production.checks import below, equal
from kdplugin.production.production_test import Fault, Outcome
from kdplugin.production.report import outcome_parts
from kdplugin.reports.tables import render


def outcome(caught: bool = True) -> Outcome:
    return Outcome(
        [below('loss', 0.25, 0.5), equal('teacher', 'abc' * 8, 'abc' * 8)],
        [Fault('zeros', below('loss', 0.75 if caught else 0.25, 0.5))],
        {'train': 12.4},
        {'projected': dict(loss=0.25, error=0.125), 'best constant': dict(loss=1.0, error=0.9)},
        Path('grid.png'),
    )


def test_every_check_and_fault_is_shown() -> None:
    text = render(*outcome_parts(outcome()))
    for words in (
        'loss',
        '0.2500',
        '0.5000',
        'teacher',
        'abcabcabcabc',
        'zeros',
        '0.7500',
        '0.125',
        'train 12',
        'Passed.',
    ):
        assert words in text
    assert 'grid.png shows latents, row by row: teacher, projected.' in text


def test_a_fault_that_is_not_caught_fails_the_test() -> None:
    assert outcome().passed
    assert not outcome(caught=False).passed
    text = render(*outcome_parts(outcome(caught=False)))
    assert 'NO' in text
    assert 'FAILED.' in text


def test_json_says_the_same() -> None:
    content = json.loads(json.dumps(outcome().to_json()))
    assert content['passed'] is True
    assert content['faults'][0]['caught'] is True
    assert content['marks']['projected']['loss'] == 0.25
