from __future__ import annotations

from typing import Any

from kdplugin.reports.measured.projection_start import projection_start_table


def run(method: str, seed: int, miou: float, steps: int | None, layers: str = 'uniform') -> dict[str, Any]:
    return dict(
        method=method, layers=layers, seed=seed, loss_0=2.0 + seed, loss_100=1.5, loss_end=0.5, miou=miou,
        steps_to_random=steps, seconds=1200.0, peak_rss_mb=800.4,
    )  # fmt: skip


def test_runs_are_summed_up_by_method_and_layers() -> None:
    runs = [
        run('random', 0, 40.0, None), run('random', 1, 42.0, None), run('svd', 0, 50.0, 120), run('svd', 1, 51.0, None),
        run('svd', 0, 48.0, 100, layers='first'),
    ]  # fmt: skip
    lines = projection_start_table({'runs': runs, 'recipe': '300 steps.'}).splitlines()
    assert lines[0].startswith('| start | layers | loss at step 0 | at step 100 | at the end | mIoU |')
    assert lines[2] == (
        '| random |  | 2.500 (2.000 to 3.000) | 1.500 | 0.500 | 41.00 (40.00 to 42.00) | never | 1,200.00 | 800 |'
    )
    assert lines[3].startswith(
        '| svd | uniform | 2.500 (2.000 to 3.000) | 1.500 | 0.500 | 50.50 (50.00 to 51.00) | 120, 1 of 2 runs |'
    )
    assert lines[4].startswith('| svd | first | 2.000 |')
    assert lines[-1] == 'Means over 2 seeds, lowest and highest in brackets. 300 steps.'
