from __future__ import annotations

import pytest

from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.reports.report import PlanReport
from kdplugin.weights.reports.report_text import WIDTH, report_text

OUT = Step('project', {'dim': 0, 'group': 'residual', 'side': 'out'})
HALF = Step('narrow', {'dim': 0, 'start': 0, 'stop': 8})


def blocks(count: int) -> list[Entry]:
    """A fused layer of every block of a student, out of every second block of a teacher."""
    return [
        Entry(
            f'layers.{n}.attn.qkv.weight', (24, 8), 'projected',
            tuple(Piece(f'blocks.{2 * n}.attn.{part}.weight', (OUT,)) for part in 'qkv'), join=0,
        )
        for n in range(count)
    ]  # fmt: skip


PLAN = ProjectionPlan(
    'teacher.pth',
    'student.backbone',
    (
        Entry('stem.weight', (8, 3), 'exact', (Piece('stem.weight'),)),
        *blocks(12),
        Entry('head.weight', (5, 8), 'random', reason='nothing fits'),
        Entry('rope', (6, 6), 'refused', reason='two fit equally well'),
    ),
    unused={f'blocks.{n}.attn.q.weight': 'layer not chosen' for n in range(1, 24, 2)} | {'fc.weight': 'no place'},
    notes=('the dummy input failed',),
)
ERRORS = {f'layers.{n}.attn.qkv.weight': n / 100 for n in range(12)}
SHAPES = {f'blocks.{n}.attn.{part}.weight': (16, 16) for n in range(24) for part in 'qkv'}


def lines(every_tensor: bool = False) -> list[str]:
    text = report_text(PlanReport(PLAN, ERRORS, SHAPES), every_tensor=every_tensor)
    return [' '.join(line.split()) for line in text.splitlines()]


def test_totals_stand_first_with_shares_of_the_whole_target() -> None:
    assert 'teacher.pth -> student.backbone' in lines()
    total = 24 + 12 * 192 + 40 + 36
    for row in (
        f'exact 1 6.67 24 {100 * 24 / total:.2f}',
        f'projected 12 80.00 2,304 {100 * 2304 / total:.2f}',
        f'loaded 13 86.67 2,328 {100 * 2328 / total:.2f}',
        f'random 1 6.67 40 {100 * 40 / total:.2f}',
        f'refused 1 6.67 36 {100 * 36 / total:.2f}',
        f'all 15 100.00 {total:,} 100.00',
    ):
        assert row in lines()


def test_repeated_layers_share_a_line_with_the_range_of_their_errors() -> None:
    said = lines()
    at = said.index('layers.*.attn.qkv.weight 12 24x8 projected 0.000-0.110')
    assert said[at + 1 : at + 5] == [
        '<- blocks.*.attn.q.weight',
        'blocks.*.attn.k.weight',
        'blocks.*.attn.v.weight 16x16',
        'join(dim 0): 3 x project(0, residual, out)',
    ]
    assert 'exact copies are counted, not listed: 1' in said
    assert not any(line.startswith('stem') for line in said)


def test_a_module_that_is_renamed_as_a_whole_is_one_line() -> None:
    leaves = {'weight': (8, 3), 'bias': (8,)}
    entries = [
        Entry(f'convs.{n}.bn.{leaf}', shape, 'renamed', (Piece(f'{n}.norm.{leaf}'),))
        for n in range(3)
        for leaf, shape in leaves.items()
    ]
    said = [
        ' '.join(line.split())
        for line in report_text(PlanReport(ProjectionPlan('a', 'b', tuple(entries)))).splitlines()
    ]
    at = said.index('convs.*.bn.* 6 several renamed 0.000')
    assert said[at + 1] == '<- *.norm.*'


def test_axis_groups_of_repeated_layers_share_a_line() -> None:
    def inner(block: int) -> Step:
        return Step('project', {'dim': 0, 'group': f'layer1.{block}.inner0', 'side': 'out'})

    entries = [Entry(f'layer1.{n}.w', (4,), 'projected', (Piece(f'layer1.{n}.w', (inner(n),)),)) for n in range(3)]
    text = report_text(PlanReport(ProjectionPlan('a', 'b', tuple(entries))))
    assert text.count('project(') == 1
    assert 'project(0, layer1.*.inner0, out)' in text


def test_every_tensor_has_its_own_lines_on_request() -> None:
    said = lines(every_tensor=True)
    for n in range(12):
        assert f'layers.{n}.attn.qkv.weight 1 24x8 projected {n / 100:.3f}' in said
        assert f'<- blocks.{2 * n}.attn.q.weight' in said
    assert 'stem.weight 1 8x3 exact 0.000' in said


@pytest.mark.parametrize(
    'line',
    [
        'random, not loaded:',
        '1 x nothing fits: head.weight',
        'refused, not loaded:',
        '1 x two fit equally well: rope',
        'source tensors that go nowhere: 13',
        '12 x layer not chosen: blocks.1.attn.q.weight, blocks.3.attn.q.weight, blocks.5.attn.q.weight, ...',
        '1 x no place: fc.weight',
        'note: the dummy input failed',
    ],
)
def test_what_is_left_out_is_said_with_its_reason(line: str) -> None:
    assert line in lines()


def test_lines_stay_within_the_width() -> None:
    long = Entry('.'.join(['module'] * 40), (1,), 'renamed', (Piece('.'.join(['other'] * 40)),))
    text = report_text(PlanReport(ProjectionPlan('a', 'b', (long,))))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert ''.join(text.split()).count('other') == 40


def test_markup_in_names_is_text() -> None:
    entry = Entry('[red]w[/red]', (1,), 'random', reason='[bold]')
    assert '1 x [bold]: [red]w[/red]' in report_text(PlanReport(ProjectionPlan('a', 'b', (entry,))))
