from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from synthetic_runs import make_run

from kdplugin.reports.compare import Comparison, compare
from kdplugin.reports.panels import MAX_CLASSES, class_panel, smooth
from kdplugin.reports.plots import draw_losses, draw_metric, draw_report
from kdplugin.reports.rows import Row


@pytest.fixture(scope='module')
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    root = tmp_path_factory.mktemp('runs')
    return compare(
        make_run(root / 'baseline', [40.0, 50.0]),
        make_run(root / 'kd', [45.0, 55.0, 52.0], kd=True),
        make_run(root / 'teacher', [60.0]),
    )


def titles(figure: Figure) -> dict[str, Axes]:
    return {axis.get_title(loc='left'): axis for axis in figure.axes if axis.get_title(loc='left')}


def test_the_metric_picture_draws_the_curves_and_names_the_selected_values(comparison: Comparison) -> None:
    (axis,) = draw_metric(comparison).axes
    by_label = {line.get_label(): line for line in axis.lines}
    assert list(by_label['baseline: 50.00 at 200'].get_ydata()) == [40.0, 50.0]
    assert list(by_label['KD: 55.00 at 200'].get_xdata()) == [100, 200, 300]
    assert list(by_label['teacher: 60.00'].get_ydata()) == [60.0, 60.0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('iteration', 'mIoU')


def test_the_loss_picture_has_a_panel_for_everything_trained(comparison: Comparison) -> None:
    panels = titles(draw_losses(comparison))
    assert list(panels) == [
        'total loss (KD: task + KD terms)', 'task loss', "parts of KD's total (weighted)",
        'KD term: logits (raw)', 'KD term: low (raw)',
    ]  # fmt: skip
    pale, _ = panels['KD term: logits (raw)'].lines
    assert list(pale.get_ydata()) == comparison.runs['kd'].series('kd_logits_raw')[1]
    assert [text.get_text() for text in panels['KD term: logits (raw)'].texts] == ['weight 0.5']
    assert [text.get_text() for text in panels['KD term: low (raw)'].texts] == ['weight 0.015 to 0.3 (dotted)']


def test_a_spike_at_the_start_does_not_flatten_the_rest(comparison: Comparison) -> None:
    line = comparison.runs['kd'].train[0]
    before = line['loss']
    line['loss'] = 1e6
    try:
        assert titles(draw_losses(comparison))['total loss (KD: task + KD terms)'].get_ylim()[1] < 1e3
    finally:
        line['loss'] = before


def test_the_readme_picture_shows_curve_classes_and_losses_under_the_result(comparison: Comparison) -> None:
    figure = draw_report(comparison)
    assert figure.get_suptitle() == 'mIoU: baseline 50.00, KD 55.00 (+5.00), teacher 60.00'
    assert set(titles(figure)) == {
        'validation mIoU (large dot: best)', 'IoU by class', 'task loss', "parts of KD's total (weighted)",
        'raw KD terms, first value = 1',
    }  # fmt: skip


def test_bars_are_the_numbers_of_the_classes(comparison: Comparison) -> None:
    axis = Figure().subplots()
    class_panel(axis, comparison)
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == [row.baseline for row in comparison.per_class] + [row.kd for row in comparison.per_class]
    assert [text.get_text() for text in axis.texts] == ['+5.0'] * 4


def test_of_many_classes_those_that_changed_most_are_drawn_in_their_order(comparison: Comparison) -> None:
    rows = [Row(f'class {index}', 50.0, 50.0 + index) for index in range(50)]
    many = Comparison(**{**vars(comparison), 'per_class': rows})
    axis = Figure().subplots()
    class_panel(axis, many)
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [f'class {index}' for index in range(50 - MAX_CLASSES, 50)]


def test_smoothing_keeps_lines_and_drops_spikes() -> None:
    line = [float(value) for value in range(20)]
    assert smooth(line)[2:-2] == line[2:-2]
    assert max(smooth([*line[:10], 1e9, *line[10:]])) < 20
    assert smooth([9.0, 3.0, 2.0, 8.0, 1.0], window=3) == [6.0, 3.0, 3.0, 2.0, 4.5]
    assert np.isfinite(smooth([1.0])).all()
