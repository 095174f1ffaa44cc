from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from kdplugin.weights.plan import Entry, Piece, ProjectionPlan
from kdplugin.weights.reports import picture
from kdplugin.weights.reports.picture import draw_plan, save_picture
from kdplugin.weights.reports.report import PlanReport

PARTS = ('norm.weight', 'fc.weight')


def report(chosen: list[int], depth: int, measured: bool = True) -> PlanReport:
    """A student whose blocks come from the chosen ones of a source; block n keeps 1 - (n / 10)^2; a random head."""
    entries = [
        Entry(f'backbone.layers.{n}.{part}', (8,), 'projected', (Piece(f'blocks.{source}.{part}'),))
        for n, source in enumerate(chosen)
        for part in PARTS
    ]
    errors = {entry.target: int(entry.target.split('.')[2]) / 10 for entry in entries} if measured else {}
    shapes = {f'blocks.{n}.{part}': (16,) for n in range(depth) for part in PARTS}
    head = Entry('backbone.head.weight', (16,), 'random', reason='nothing fits')
    return PlanReport(ProjectionPlan('teacher.pth', 'student', (*entries, head)), errors, shapes)


def panels(figure: Figure) -> tuple[Axes, Axes]:
    return figure.axes[0], figure.axes[1]


def labels(axis: object) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]  # type: ignore[attr-defined]


def test_every_student_layer_stands_over_its_source_layer_in_the_colour_of_its_energy() -> None:
    matrix, bars = panels(draw_plan(report([0, 2, 5], depth=6)))
    points = matrix.collections[0]
    assert points.get_offsets().tolist() == [[0, 0], [1, 2], [2, 5]]
    assert points.get_array().tolist() == pytest.approx([1.0, 0.99, 0.96])
    assert points.get_clim() == (0, 1)
    assert [text.get_text() for text in matrix.texts] == ['1.00', '0.99', '0.96']
    assert labels(matrix.yaxis) == ['0', '1', '2', '3', '4', '5']
    assert labels(bars.xaxis) == ['layers.0', 'layers.1', 'layers.2', 'head']
    assert matrix.get_ylim()[0] > matrix.get_ylim()[1]


def test_layers_that_nobody_took_are_grey() -> None:
    matrix, _ = panels(draw_plan(report([0, 2], depth=3)))
    assert [label.get_color() for label in matrix.get_yticklabels()] == ['black', '#aaaaaa', 'black']


def test_what_was_not_measured_is_hollow_and_said() -> None:
    matrix, _ = panels(draw_plan(report([0, 1], depth=2, measured=False)))
    assert len(matrix.collections[0].get_offsets()) == 0
    assert matrix.collections[1].get_offsets().tolist() == [[0, 0], [1, 1]]
    assert matrix.collections[1].get_facecolor().size == 0
    assert 'hollow: error not measured' in matrix.get_ylabel()
    assert 'hollow' not in panels(draw_plan(report([0, 1], depth=2)))[0].get_ylabel()


def test_bars_show_what_each_student_layer_is_made_of() -> None:
    figure = draw_plan(report([0, 1], depth=2))
    _, bars = panels(figure)
    heights = {bar.get_label(): [part.get_height() for part in bar] for bar in bars.containers}
    assert heights == {'projected': [1, 1, 0], 'random': [0, 0, 1]}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ['projected', 'random']


def test_the_headline_counts_tensors_and_parameters() -> None:
    text = draw_plan(report([0, 1], depth=2)).get_suptitle()
    assert text == 'teacher.pth  ->  student\nloaded: 80.0 % of the tensors, 66.6 % of the parameters'


def test_many_labels_are_thinned_out() -> None:
    matrix, bars = panels(draw_plan(report(list(range(150)), depth=150)))
    assert len(matrix.get_yticks()) <= picture.MAX_LABELS
    assert labels(bars.xaxis)[:2] == ['layers.0', 'layers.3']
    assert len(matrix.texts) == 0


def test_the_file_is_a_png_and_nothing_else_is_left(tmp_path: Path) -> None:
    save_picture(report([0, 1], depth=2), tmp_path / 'plan.png')
    assert list(tmp_path.iterdir()) == [tmp_path / 'plan.png']
    pixels = imread(tmp_path / 'plan.png')
    assert pixels.shape[0] >= 600
    assert pixels.shape[1] >= 800
    assert pixels.std() > 0.05


def test_a_plan_without_any_link_can_be_drawn(tmp_path: Path) -> None:
    plan = ProjectionPlan('a', 'b', (Entry('w', (3,), 'random'),))
    save_picture(PlanReport(plan), tmp_path / 'plan.png')
    assert (tmp_path / 'plan.png').stat().st_size > 1000
