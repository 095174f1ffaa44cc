from __future__ import annotations

import pytest

from kdplugin.reports.rows import Row


@pytest.mark.parametrize(
    ('baseline', 'kd', 'higher', 'delta', 'improvement'),
    [
        (40.0, 42.0, True, 2.0, 5.0),
        (40.0, 38.0, True, -2.0, -5.0),
        (40.0, 30.0, False, -10.0, 25.0),
        (-2.0, -1.0, True, 1.0, 50.0),
        (0.0, 1.0, True, 1.0, None),
        (None, 1.0, True, None, None),
        (1.0, None, True, None, None),
    ],
)
def test_improvement_is_positive_where_kd_is_better(
    baseline: float | None, kd: float | None, higher: bool, delta: float | None, improvement: float | None
) -> None:
    row = Row('x', baseline, kd, higher_is_better=higher)
    assert (row.delta, row.improvement) == (delta, improvement)
