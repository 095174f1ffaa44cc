from __future__ import annotations

import json

import pytest

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import KINDS, Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.reports.report import PlanReport
from kdplugin.weights.reports.report_text import report_text

NARROW = Step('narrow', {'dim': 0, 'start': 0, 'stop': 2})

ENTRIES = (
    Entry('same', (10,), 'exact', (Piece('same'),)),
    Entry('new', (4, 5), 'renamed', (Piece('old'),)),
    Entry('q', (2, 15), 'converted', (Piece('qkv', (NARROW,)),)),
    Entry('wide', (10, 10), 'projected', (Piece('big', (Step('project', {'dim': 0, 'group': 'g', 'side': 'out'}),)),)),
    Entry('count', (), 'random', reason='nothing fits'),
    Entry('head', (39,), 'random', reason='nothing fits'),
    Entry('rope', (50, 5), 'refused', reason='two fit equally well'),
)
PLAN = ProjectionPlan('teacher.pth', 'student', ENTRIES, unused={'fc': 'no place'}, settings={'method': 'svd'})
ERRORS = {'q': 0.0, 'wide': 0.25}
SHAPES = {'same': (10,), 'old': (4, 5), 'qkv': (6, 15), 'big': (20, 10)}


def test_totals_by_tensors_and_by_parameters() -> None:
    totals = PlanReport(PLAN).totals
    assert {kind: tuple(totals[kind].values()) for kind in totals} == {
        'exact': (1, 10),
        'renamed': (1, 20),
        'converted': (1, 30),
        'projected': (1, 100),
        'random': (2, 40),
        'refused': (1, 250),
        'loaded': (4, 160),
        'all': (7, 450),
    }


def test_coverage_counts_what_is_skipped_as_missing() -> None:
    assert PlanReport(PLAN).coverage == {'tensors': 4 / 7, 'parameters': 160 / 450}


@pytest.mark.parametrize('kind', ['random', 'refused'])
def test_a_skipped_tensor_is_never_a_success(kind: str) -> None:
    """Whatever is said about it: an error of 0, a score of 1."""
    plan = ProjectionPlan('a', 'b', (Entry('w', (3,), kind, score=1.0),))
    report = PlanReport(plan, errors={'w': 0.0})
    assert report.coverage == {'tensors': 0.0, 'parameters': 0.0}
    assert report.rows[0].error is None
    assert report.totals['loaded'] == {'tensors': 0, 'parameters': 0}
    with pytest.raises(CheckpointError, match=r'got 0\.0 %; 1 of 1 tensors are not loaded'):
        report.require(0.0)


def test_kinds_add_up_to_all() -> None:
    totals = PlanReport(PLAN).totals
    for unit in ('tensors', 'parameters'):
        assert sum(totals[kind][unit] for kind in KINDS) == totals['all'][unit]
        assert sum(totals[kind][unit] for kind in KINDS[:4]) == totals['loaded'][unit]


def test_errors_are_zero_for_copies_and_unknown_where_nobody_measured() -> None:
    def errors(**measured: float) -> list[float | None]:
        return [row.error for row in PlanReport(PLAN, errors=measured).rows]

    assert errors() == [0.0, 0.0, None, None, None, None, None]
    assert errors(q=0.0, wide=0.25, head=0.5) == [0.0, 0.0, 0.0, 0.25, None, None, None]
    assert errors(wide=float('nan'))[3] is None


def test_a_row_says_what_was_made_of_what() -> None:
    row = PlanReport(PLAN, ERRORS, SHAPES).rows[2]
    assert (row.target, row.shape, row.parameters, row.kind) == ('q', (2, 15), 30, 'converted')
    assert (row.sources, row.source_shapes, row.operation) == (('qkv',), ((6, 15),), 'narrow(0, 0, 2)')
    assert PlanReport(PLAN).rows[2].source_shapes == (None,)


def test_json_holds_every_tensor_and_comes_back() -> None:
    content = json.loads(PlanReport(PLAN, ERRORS, SHAPES).to_json())
    assert content['coverage'] == {'tensors': 4 / 7, 'parameters': 160 / 450}
    assert content['totals']['refused'] == {'tensors': 1, 'parameters': 250}
    assert [row['target'] for row in content['tensors']] == [entry.target for entry in ENTRIES]
    assert content['tensors'][3] == {
        'target': 'wide', 'shape': [10, 10], 'parameters': 100, 'kind': 'projected', 'sources': ['big'],
        'source_shapes': [[20, 10]], 'operation': 'project(0, g, out)', 'error': 0.25, 'score': 1.0, 'margin': 1.0,
        'reason': '',
    }  # fmt: skip
    assert (content['unused'], content['settings']) == ({'fc': 'no place'}, {'method': 'svd'})


def test_json_stays_json_when_an_error_is_not_a_number() -> None:
    text = PlanReport(PLAN, {'wide': float('inf')}).to_json()
    assert 'Infinity' not in text
    assert json.loads(text)['tensors'][3]['error'] is None


# min_coverage


def test_enough_coverage_passes() -> None:
    PlanReport(PLAN).require(160 / 450)


def test_too_little_coverage_names_the_largest_missing_tensors_first() -> None:
    message = (
        r'Expected teacher\.pth to give 50\.0 % of the parameters of student but got 35\.5 %; 3 of 7 tensors are not '
        r'loaded \(rope \(50, 5\), refused: two fit equally well; head \(39,\), random: nothing fits; .*\)\. '
        r'Use a nearer source, give its prefix, edit the plan or lower min_coverage\.'
    )
    with pytest.raises(CheckpointError, match=message):
        PlanReport(PLAN).require(0.5)


def test_almost_all_does_not_read_as_all() -> None:
    entries = (Entry('w', (9999,), 'exact', (Piece('w'),)), *(Entry(f'b{n}', (), 'random') for n in range(7)))
    report = PlanReport(ProjectionPlan('a', 'b', entries))
    with pytest.raises(CheckpointError, match=r'got 99\.9 %; 7 of 8 .*b4 \(\), random: no reason given; \.\.\.\)'):
        report.require(1.0)
    assert '99.93' in report_text(report)
    assert '100.00' not in next(line for line in report_text(report).splitlines() if 'loaded' in line)


def test_an_empty_plan_covers_nothing() -> None:
    report = PlanReport(ProjectionPlan('a', 'b', ()))
    assert report.coverage == {'tensors': 0.0, 'parameters': 0.0}
    with pytest.raises(CheckpointError, match=r'0 of 0 tensors are not loaded'):
        report.require(0.0)
