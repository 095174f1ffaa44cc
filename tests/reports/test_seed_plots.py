from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from seed_runs import BASELINE, KD, seed_runs
from synthetic_runs import make_run

from kdplugin.reports.compare_seeds import SeedComparison, SeedRow, compare_seeds
from kdplugin.reports.panels import MAX_CLASSES
from kdplugin.reports.seed_plots import draw_class_gains, draw_seeds, gain_text


@pytest.fixture(scope='module')
def comparison(tmp_path_factory: pytest.TempPathFactory) -> SeedComparison:
    root: Path = tmp_path_factory.mktemp('runs')
    return compare_seeds(*seed_runs(root), make_run(root / 'teacher', [82.37]))


def test_every_run_is_a_line_and_their_mean_a_strong_one(comparison: SeedComparison) -> None:
    figure = draw_seeds(comparison)
    left, right = figure.axes
    lines = {str(line.get_label()): line for line in left.lines}
    assert list(lines['baseline, mean of the seeds'].get_ydata()) == pytest.approx([20, sum(BASELINE.values()) / 3, 30])
    assert list(lines['KD, mean of the seeds'].get_xdata()) == [100, 200, 300]
    assert list(lines['teacher: 82.37'].get_ydata()) == [82.37] * 2
    thin = [list(line.get_ydata()) for line in left.lines if line.get_linewidth() < 1]
    assert sorted(line[2] for line in thin) == sorted([30.0] * 3 + list(KD.values()))
    slopes = [tuple(line.get_ydata()) for line in right.lines]
    assert sorted(slopes) == sorted(zip(BASELINE.values(), KD.values(), strict=True))
    assert {text.get_text() for text in right.texts} == {'seed 0: +7.06', 'seed 1: +10.44', 'seed 2: +12.47'}
    assert figure.get_suptitle() == 'mIoU: KD gains +9.99 on average over 3 seeds (standard deviation 2.73)'


def test_gains_that_are_close_are_written_apart(comparison: SeedComparison) -> None:
    close = SeedRow('mIoU', (40.0, 41.0, 42.0), (50.0, 50.001, 50.002))
    figure = draw_seeds(replace(comparison, metrics=[close]))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[1].texts]
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_classes_have_whiskers(comparison: SeedComparison) -> None:
    (axis,) = draw_class_gains(comparison).axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([row.mean_gain for row in comparison.per_class])
    segments = axis.collections[0].get_segments()  # type: ignore[attr-defined]
    row = comparison.per_class[0]
    assert segments[0][:, 0] == pytest.approx([row.mean_gain - row.spread, row.mean_gain + row.spread])


def test_of_many_classes_those_that_changed_most_are_drawn(comparison: SeedComparison) -> None:
    rows = [SeedRow(f'class {n}', (50.0, 50.0), (50.0 + n, 50.0 + n)) for n in range(40)]
    (axis,) = draw_class_gains(replace(comparison, per_class=rows)).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == [f'class {n}' for n in range(40 - MAX_CLASSES, 40)]
    assert axis.get_title(loc='left').endswith(f': the {MAX_CLASSES} that changed most')


def test_a_loss_is_told_as_one() -> None:
    row = SeedRow('mIoU', (50.0, 52.0), (49.0, 49.0))
    assert gain_text(row) == 'mIoU: KD gains -2.00 on average over 2 seeds (standard deviation 1.41)'
