from __future__ import annotations

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdplugin.reports.loss_terms import LossTerms
from kdplugin.reports.panels import pair_panel, parts_panel, raw_panel, relative_panel

STEPS = [50, 100, 150]


def terms(raw: dict[str, list[float]], weights: dict[str, list[float]]) -> LossTerms:
    curves = {name: (STEPS, values) for name, values in raw.items()}
    weighted = {name: (STEPS, [w * r for w, r in zip(weights[name], raw[name], strict=True)]) for name in raw}
    task = (STEPS, [2.0, 1.0, 0.5])
    return LossTerms(task, task, {}, curves, {name: (STEPS, values) for name, values in weights.items()}, weighted)


@pytest.fixture
def axis() -> Axes:
    return Figure().subplots()


def strong_lines(axis: Axes) -> dict[str, list[float]]:
    return {
        str(line.get_label()): [float(value) for value in line.get_ydata()]
        for line in axis.lines
        if not str(line.get_label()).startswith('_')
    }


def test_relative_terms_begin_at_one(axis: Axes) -> None:
    relative_panel(axis, terms({'a': [4.0, 4.0, 4.0], 'b': [0.1, 0.1, 0.1]}, {'a': [1.0] * 3, 'b': [1.0] * 3}))
    assert strong_lines(axis) == {'a': [1.0] * 3, 'b': [1.0] * 3}


def test_a_term_that_is_zero_throughout_stays_zero(axis: Axes) -> None:
    relative_panel(axis, terms({'a': [0.0, 0.0, 0.0]}, {'a': [1.0] * 3}))
    assert strong_lines(axis) == {'a': [0.0] * 3}


def test_a_constant_weight_is_written_in(axis: Axes) -> None:
    raw_panel(axis, 'a', terms({'a': [3.0, 2.0, 1.0]}, {'a': [0.25] * 3}))
    assert [text.get_text() for text in axis.texts] == ['weight 0.25']
    assert axis.get_title(loc='left') == 'KD term: a (raw)'
    assert len(axis.figure.axes) == 1


def test_a_moving_weight_gets_an_axis_of_its_own(axis: Axes) -> None:
    raw_panel(axis, 'a', terms({'a': [3.0, 2.0, 1.0]}, {'a': [1.0, 0.5, 0.0]}))
    assert [text.get_text() for text in axis.texts] == ['weight 1 to 0 (dotted)']
    _, other = axis.figure.axes
    assert list(other.lines[0].get_ydata()) == [1.0, 0.5, 0.0]


def test_the_parts_of_the_total_are_weighted_and_logarithmic(axis: Axes) -> None:
    parts_panel(axis, terms({'a': [8.0, 8.0, 8.0]}, {'a': [0.5] * 3}))
    assert strong_lines(axis)['a'] == [4.0] * 3
    assert axis.get_yscale() == 'log'


def test_a_pair_panel_names_both_runs(axis: Axes) -> None:
    pair_panel(axis, 'total', (STEPS, [3.0, 3.0, 3.0]), (STEPS, [2.0, 2.0, 2.0]))
    assert strong_lines(axis) == {'baseline': [3.0] * 3, 'KD': [2.0] * 3}
