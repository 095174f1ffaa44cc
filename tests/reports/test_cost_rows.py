from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_runs import STUDENT, make_run, recipe

from kdplugin.reports.cost_rows import cost_rows
from kdplugin.reports.rows import Row
from kdplugin.reports.run_log import read_run

WIDTH, WIDE = 4, 8


def parameters(width: int) -> int:
    return 3 * 9 * width + width + 4 * width + 4


def costs(baseline: Path, kd: Path, shape: tuple[int, int] | None = (16, 24)) -> tuple[dict[str, Row], list[str]]:
    runs = {'baseline': read_run(baseline), 'kd': read_run(kd)}
    rows, notes = cost_rows(runs, {name: run.select('best') for name, run in runs.items()}, shape)
    return {row.name: row for row in rows}, notes


def pair(tmp_path: Path) -> tuple[Path, Path]:
    wide = recipe(model=dict(STUDENT, width=WIDE))
    return make_run(tmp_path / 'a', [40.0]), make_run(tmp_path / 'b', [50.0], kd=True, config=wide, width=WIDE)


def test_every_cost_is_the_one_counted_by_hand(tmp_path: Path) -> None:
    baseline, kd = pair(tmp_path)
    rows, notes = costs(baseline, kd)
    assert notes == []
    assert (rows['parameters'].baseline, rows['parameters'].kd) == (parameters(WIDTH), parameters(WIDE))
    assert rows['student weights, MB'].kd == pytest.approx(parameters(WIDE) * 4 / 1e6)
    assert rows['checkpoint file, MB'].kd == (kd / 'best_mIoU_iter_100.pth').stat().st_size / 1e6
    assert rows['multiply-adds, G'].baseline == pytest.approx(16 * 24 * (WIDTH * 27 + 4 * WIDTH) / 1e9)
    assert rows['seconds per training step'].baseline == 0.2
    assert rows['seconds per training step'].improvement == pytest.approx(-25.0)
    assert 0 < (rows['latency, ms'].baseline or 0) < 1000
    assert not any(row.higher_is_better for row in rows.values())


def test_one_network_has_one_latency(tmp_path: Path) -> None:
    """Baseline and KD usually are one network: the noise of two measurements is no improvement."""
    baseline, kd = make_run(tmp_path / 'a', [40.0]), make_run(tmp_path / 'b', [50.0], kd=True)
    rows, _ = costs(baseline, kd)
    assert rows['latency, ms'].delta == 0
    rows, _ = costs(*pair(tmp_path / 'other'))
    assert rows['latency, ms'].delta != 0


def test_a_missing_number_is_a_note_and_the_others_stand(tmp_path: Path) -> None:
    baseline, kd = pair(tmp_path)
    for file in kd.glob('*.pth'):
        file.unlink()
    rows, notes = costs(baseline, kd, shape=None)
    assert rows['checkpoint file, MB'].kd is None
    assert rows['multiply-adds, G'].baseline is None
    assert rows['parameters'].kd == parameters(WIDE)
    assert len(notes) == 2
    assert 'kd: no checkpoint size (CheckpointError: Expected a checkpoint of step 100' in notes[0]
    assert 'Give --shape H W' in notes[1]


def test_a_model_that_cannot_be_built_or_run_is_a_note(tmp_path: Path) -> None:
    baseline = make_run(tmp_path / 'a', [40.0], config=recipe(model=dict(type='NoSuchModel')))
    kd = make_run(tmp_path / 'b', [40.0], config=recipe(model=dict(STUDENT, width=2)))
    rows, notes = costs(baseline, kd, shape=(0, 8))
    assert rows['parameters'].baseline is None
    assert rows['parameters'].kd == parameters(2)
    assert 'baseline: the model was not built (KeyError' in notes[0]


def test_a_teachers_checkpoint_in_a_students_place_is_a_note(tmp_path: Path) -> None:
    import torch

    baseline, kd = pair(tmp_path)
    torch.save({'state_dict': {'teacher.conv.weight': torch.ones(1)}}, kd / 'best_mIoU_iter_100.pth')
    rows, notes = costs(baseline, kd)
    assert rows['student weights, MB'].kd is None
    assert 'keys of a teacher' in notes[0]
