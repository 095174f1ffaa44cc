"""A plan prints, goes to JSON and comes back; what cannot be a plan is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup, Entry, Piece, ProjectionPlan, Step

WHOLE = Entry('a', (2, 3), 'renamed', (Piece('x'),))
FUSED = Entry(
    'b', (4, 3), 'converted',
    (Piece('y', (Step('narrow', {'dim': 0, 'start': 0, 'stop': 2}),)), Piece(None, shape=(2, 3))), 0,
)  # fmt: skip
PART = Entry('c', (2, 3), 'converted', (Piece('y', (Step('narrow', {'dim': 0, 'start': 2, 'stop': 4}),)),))
LOST = Entry('d', (7,), 'random', reason='nothing fits')
OUT = Step('project', {'dim': 0, 'group': 'residual', 'side': 'out'})
HALF = Step('narrow', {'dim': 0, 'start': 0, 'stop': 8})


def plan(*entries: Entry, **more: Any) -> ProjectionPlan:
    return ProjectionPlan('teacher', 'student', entries or (WHOLE, FUSED, PART, LOST), **more)


def test_json_brings_back_the_same_plan(tmp_path: Path) -> None:
    group = AxisGroup('residual', 8, 4, 'svd', (('x', 0, 'out'), ('y', 1, 'in')))
    made = plan(groups={'stream': group}, unused={'z': 'no place'}, settings={'layers': [0, 2]}, notes=('a note',))
    assert ProjectionPlan.from_json(made.to_json()) == made
    made.save(tmp_path / 'plan.json')
    assert ProjectionPlan.load(tmp_path / 'plan.json') == made


def test_mapping_holds_whole_tensors_alone() -> None:
    assert plan().mapping == {'x': 'a'}


def test_entries_are_found_by_name_and_replaced() -> None:
    other = Entry('d', (7,), 'renamed', (Piece('z'),))
    changed = plan().replaced(other)
    assert changed['d'] is other
    assert changed['a'] is WHOLE
    assert len(changed) == 4
    assert FUSED.sources == ('y',)
    assert [entry.loads for entry in changed.entries] == [True] * 4
    assert not LOST.loads
    with pytest.raises(KeyError):
        changed['nowhere']


def test_a_step_prints_as_a_call() -> None:
    assert str(Step('narrow', {'dim': 0, 'start': 2, 'stop': 4})) == 'narrow(0, 2, 4)'
    assert str(Step('index', {'dim': 1, 'indices': list(range(100))})) == 'index(1, [100 values])'


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: Step('cut', {}), r'Expected a plan step of .*narrow.* but got cut\(\)\. Correct the plan'),
        (lambda: Step('narrow', {'dim': 0}), r'Expected a plan step of dim, start, stop but got narrow\(dim\)'),
        (lambda: Entry('a', (1,), 'guessed'), r"Expected a kind of exact, .* for a but got 'guessed'"),
        (lambda: Entry('a', (1,), 'renamed'), r"Expected pieces that fit kind 'renamed' of a but got 0"),
        (lambda: Entry('a', (1,), 'random', (Piece('x'),)), r"pieces that fit kind 'random' of a but got 1"),
        (lambda: Entry('a', (1,), 'converted', (Piece('x'), Piece('y'))), r'but got 2 with join=None'),
        (lambda: plan(WHOLE, WHOLE), r'Expected one entry for each tensor but got two for a\. Remove one'),
    ],
)
def test_what_is_no_plan_is_refused(make: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        make()


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"version": 0}'])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(
        CheckpointError, match=r'Expected the JSON of a projection plan \(version \d+\) but got .*map_weights'
    ):
        ProjectionPlan.from_json(text)


def test_an_edited_plan_with_a_mistake_is_refused() -> None:
    content = json.loads(plan().to_json())
    content['entries'][0]['kind'] = 'guessed'
    with pytest.raises(CheckpointError, match='Expected a kind of'):
        ProjectionPlan.from_json(json.dumps(content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'Expected a plan file but .*none\.json does not exist\. Check the path'):
        ProjectionPlan.load(tmp_path / 'none.json')


@pytest.mark.parametrize(
    ('entry', 'text'),
    [
        (Entry('a', (8,), 'exact', (Piece('a'),)), 'copy'),
        (Entry('a', (8,), 'random'), 'none: keeps its initialisation'),
        (Entry('a', (8,), 'refused'), 'none: keeps its initialisation'),
        (Entry('a', (8,), 'converted', (Piece('b', (HALF,)),)), 'narrow(0, 0, 8)'),
        (Entry('a', (8,), 'projected', (Piece('b', (HALF, OUT)),)), 'narrow(0, 0, 8), project(0, residual, out)'),
        (
            Entry('a', (24,), 'converted', (Piece('q'), Piece(None, shape=(8,)), Piece('v')), join=0),
            'join(dim 0): copy | zeros(8,) | copy',
        ),
    ],
)
def test_an_operation_reads_as_it_runs(entry: Entry, text: str) -> None:
    assert entry.operation == text
