"""The mapping as JSON and as a table: counts, coverage, and what is left with its reason."""

from __future__ import annotations

import json

import pytest
import torch

from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.reading.tensor_source import MemorySource
from kdplugin.weights.reports.mapping_report import mapping_report, print_mapping

SOURCE = MemorySource({name: torch.zeros(2) for name in ('a', 'b', 'c', 'd')}, 'Old')
PLAN = ProjectionPlan(
    'Old',
    'New',
    (
        Entry('x', (2,), 'renamed', (Piece('a'),), score=0.9),
        Entry('y', (4,), 'converted', (Piece('b'), Piece('c')), 0, score=0.95),
        Entry('z', (3,), 'refused', reason='two fit equally well'),
        Entry('[bold]w', (3,), 'random', reason='nothing fits'),
    ),
    unused={'d': 'no target tensor takes it'},
    notes=('layers taken from [0, 2]',),
)


def test_the_report_has_the_keys_of_lit_wsl() -> None:
    assert mapping_report(PLAN, SOURCE) == {
        'source_model': 'Old',
        'target_model': 'New',
        'source_params_count': 4,
        'target_params_count': 4,
        'matched_count': 2,
        'coverage': 0.5,
        'mappings': [
            {'source': 'a', 'target': 'x', 'score': 0.9, 'shape': [2]},
            {'source': 'b + c', 'target': 'y', 'score': 0.95, 'shape': [4]},
        ],
        'unmatched_source': ['d'],
        'unmatched_target': ['z', '[bold]w'],
    }


def test_the_report_is_json_and_an_empty_plan_covers_nothing() -> None:
    report = mapping_report(ProjectionPlan('a', 'b', ()), SOURCE)
    assert json.loads(json.dumps(report))['coverage'] == 0


def test_the_table_has_the_best_pairs_first_and_all_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    print_mapping(PLAN, SOURCE, top_n=1, show_unmatched=True)
    lines = capsys.readouterr().out.splitlines()
    assert 'Old (4 tensors) -> New (4 tensors): 2 matched, 50.0%' in lines
    assert [line for line in lines if '0.950' in line]
    assert not [line for line in lines if '0.900' in line]
    for expected in (
        'note: layers taken from [0, 2]',
        'refused: z: two fit equally well',
        'random: [bold]w: nothing fits',
        'unused: d: no target tensor takes it',
    ):
        assert expected in lines


def test_what_is_left_is_silent_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    print_mapping(PLAN, SOURCE, top_n=10, show_unmatched=False)
    printed = capsys.readouterr().out
    assert '0.900' in printed
    assert 'refused: z' not in printed
    assert 'unused' not in printed


def test_long_names_are_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    name = '.'.join(['module'] * 30)
    entries = (Entry(name, (2,), 'random', reason='nothing fits'), Entry('x', (2,), 'renamed', (Piece(f'{name}.end'),)))
    print_mapping(ProjectionPlan('a', 'b', entries), SOURCE, top_n=10, show_unmatched=True)
    printed = capsys.readouterr().out
    assert f'random: {name}: nothing fits' in printed.splitlines()
    cells = ''.join(line.split('│')[1].strip() for line in printed.splitlines() if line.startswith('│'))
    assert cells == f'{name}.end'
