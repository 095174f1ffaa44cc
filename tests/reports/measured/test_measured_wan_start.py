"""The table of starts: means, spreads, and what a constant would have."""

from __future__ import annotations

from kdplugin.reports.measured.wan_start import wan_start_table


def run(start: str, seed: int, loss: float) -> dict[str, object]:
    return dict(
        start=start, seed=seed, loss_0=loss, loss_100=loss / 2, loss_500=loss / 4, error=0.5, constant_loss=1.25,
        constant_error=0.875,
    )  # fmt: skip


def test_each_start_is_a_row_of_means_with_their_spread() -> None:
    runs = [run('random', 0, 2.0), run('random', 1, 4.0), run('projected', 0, 1.0), run('projected', 1, 1.0)]
    lines = wan_start_table(dict(recipe='So it was.', runs=runs)).splitlines()
    assert lines[0].startswith('| start | loss at step 0 | at step 100 | at step 500 |')
    assert lines[2] == ('| random | 3.000 (2.000 to 4.000) | 1.500 (1.000 to 2.000) | 0.750 (0.500 to 1.000) | 0.500 |')
    assert lines[3] == '| projected | 1.000 | 0.500 | 0.250 | 0.500 |'
    assert lines[5].startswith('Means over 2 seeds')
    assert 'have 1.250 and 0.875. So it was.' in lines[5]
