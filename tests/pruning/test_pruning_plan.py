"""What a pruning plan accepts, and that it prints, goes to JSON and comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdplugin.errors import CheckpointError
from kdplugin.pruning.plan import PruningPlan, is_pruning_file, is_pruning_plan

VALUES: dict[str, Any] = dict(
    heads=((0, 2), (3,)), neurons=((0, 1), (1, 2)), num_heads=4, hidden=3, head_dim=2, prefix='img_backbone.'
)


def test_counts_and_rows() -> None:
    plan = PruningPlan(**VALUES)
    assert (plan.depth, plan.head_counts, plan.neuron_counts) == (2, (2, 1), (2, 2))
    assert plan.rows(0) == [0, 1, 4, 5]
    assert plan.rows(1) == [6, 7]
    assert plan.prunes_heads
    assert plan.prunes_neurons


def test_whole_prunes_nothing() -> None:
    plan = PruningPlan.whole(2, 4, 3, 2, 'backbone.', scorer='none')
    assert not plan.prunes_heads
    assert not plan.prunes_neurons
    assert plan.rows(1) == list(range(8))
    assert plan.about == {'scorer': 'none'}
    assert plan.replaced(heads=((0,), (0, 1, 2, 3))).prunes_heads


def test_it_prints() -> None:
    plan = PruningPlan(**{**VALUES, 'heads': ((0, 1, 3), (2,))})
    assert str(plan).splitlines() == [
        'pruning plan of 2 blocks: 4 of 8 heads, 4 of 6 neurons',
        '  block 0: 3 of 4 heads [0-1 3], 2 of 3 neurons',
        '  block 1: 1 of 4 heads [2], 2 of 3 neurons',
    ]


def test_json_and_back(tmp_path: Path) -> None:
    plan = PruningPlan(**VALUES, about={'scorer': 'taylor', 'budget': {'heads': 2}})
    assert PruningPlan.from_json(plan.to_json()) == plan
    plan.write(tmp_path / 'new' / 'plan.json')
    assert PruningPlan.read(tmp_path / 'new' / 'plan.json') == plan
    assert is_pruning_plan(json.loads(plan.to_json()))
    assert is_pruning_file(tmp_path / 'new' / 'plan.json')
    (tmp_path / 'other.json').write_text('{"version": 1}')
    (tmp_path / 'no.json').write_text('{')
    assert not any(is_pruning_file(tmp_path / name) for name in ('other.json', 'no.json', 'none.json'))
    assert '  [0, 2],\n  [3]\n' in plan.to_json()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(heads=((0, 4), (1,))), 'Expected heads of block 0 from 0 to 3 but got 4'),
        (dict(heads=((0,), (-1, 1))), 'Expected heads of block 1 from 0 to 3 but got -1'),
        (dict(heads=((1, 0), (1,))), r'in ascending order, each once, but got \[1, 0\]'),
        (dict(heads=((1, 1), (1,))), r'in ascending order, each once, but got \[1, 1\]'),
        (dict(neurons=((), (1,))), 'Expected at least one of the neurons of block 0 but got none'),
        (dict(neurons=((0,),)), 'Expected heads and neurons of the same blocks but got 2 and 1 blocks'),
        (dict(neurons=()), r'Expected neurons as lists of indices, one for each block, but got \(\)'),
        (dict(neurons=(0, 1)), 'Expected indices of neurons of block 0 but got 0'),
        (dict(heads=((0, 1.5), (1,))), r'Expected indices of heads of block 0 but got \(0, 1.5\)'),
        (dict(heads=((True,), (1,))), r'Expected indices of heads of block 0 but got \(True,\)'),
        (dict(hidden=0), 'Expected hidden of at least 1 but got 0'),
        (dict(head_dim='2'), "Expected head_dim of at least 1 but got '2'"),
        (dict(prefix='img_backbone'), "ends with a dot but got 'img_backbone'"),
        (dict(about=[]), 'Expected about to be a dict but got list'),
    ],
)
def test_contradictions(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        PruningPlan(**{**VALUES, **changes})


def edited(**changes: Any) -> str:
    content = {**json.loads(PruningPlan(**VALUES).to_json()), **changes}
    return json.dumps({key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'Expected the JSON of a pruning plan in the text but got Expecting'),
        ('[]', r'Expected a pruning plan \(version 1\) in the text but got list'),
        (edited(version=2), 'but got what=.pruning plan., version=2'),
        (edited(what=None), 'but got what=None, version=1'),
        (edited(haeds=[]), "'haeds' is unknown. Did you mean 'heads'"),
        (edited(hidden=None), "'hidden' is missing"),
        (edited(heads=[[0, 9], [1]]), 'the text: Expected heads of block 0 from 0 to 3 but got 9'),
    ],
)
def test_texts_that_are_no_plan(text: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        PruningPlan.from_json(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'Expected a pruning plan but .*none.json does not exist'):
        PruningPlan.read(tmp_path / 'none.json')
