from __future__ import annotations

from pathlib import Path

import pytest
from seed_runs import BASELINE, KD, seed_runs
from synthetic_runs import distilled, make_run, recipe

from kdplugin.errors import DataError
from kdplugin.reports.compare_seeds import SeedRow, compare_seeds, paired_by_seed, seed_of
from kdplugin.reports.run_log import read_run


def test_runs_are_paired_by_seed_whatever_their_order(tmp_path: Path) -> None:
    result = compare_seeds(*seed_runs(tmp_path))
    row = result.metrics[0]
    assert list(result.by_seed) == [0, 1, 2]
    assert (row.name, row.baseline, row.kd) == ('mIoU', tuple(BASELINE.values()), tuple(KD.values()))
    assert row.gains == pytest.approx((7.06, 10.44, 12.47))
    assert row.mean_gain == pytest.approx(9.99)
    assert row.spread == pytest.approx(((2.93**2 + 0.45**2 + 2.48**2) / 2) ** 0.5, abs=1e-9)
    assert [len(values) for one in result.per_class for values in (one.baseline, one.kd)] == [3] * 8
    assert result.warnings == []


def test_costs_are_measured_once(tmp_path: Path) -> None:
    first, second, _ = compare_seeds(*seed_runs(tmp_path)).by_seed.values()
    assert {row.name for row in first.costs} >= {'parameters', 'latency, ms'}
    assert second.costs == []
    assert second.notes == []


def test_the_rule_and_the_teacher_hold_for_every_seed(tmp_path: Path) -> None:
    result = compare_seeds(*seed_runs(tmp_path), make_run(tmp_path / 'teacher', [80.0]), 'last')
    assert result.metrics[0].baseline == (30.0, 30.0, 30.0)
    assert [one.metrics[0].teacher for one in result.by_seed.values()] == [80.0] * 3


def test_a_seed_without_a_partner_is_refused_by_name(tmp_path: Path) -> None:
    ours, theirs = seed_runs(tmp_path)
    with pytest.raises(DataError, match=r'same seed but got seed 0 \(.*baseline0\) of baseline alone. Leave out'):
        paired_by_seed(ours, theirs[:2])
    with pytest.raises(
        DataError, match=r'got seed 2 \(.*baseline2\) of baseline alone; seed 0 \(.*kd0\) of KD alone. Leave out'
    ):
        paired_by_seed(ours[1:], theirs[1:])


def test_a_seed_given_twice_is_refused(tmp_path: Path) -> None:
    ours, theirs = seed_runs(tmp_path)
    again = make_run(tmp_path / 'again', [40.0], config=recipe(randomness=dict(seed=1)))
    with pytest.raises(DataError, match=r'Expected one baseline run for each seed but .*baseline1 and .*again both'):
        paired_by_seed([*ours, again], theirs)


def test_one_seed_has_no_spread(tmp_path: Path) -> None:
    ours, theirs = seed_runs(tmp_path)
    with pytest.raises(DataError, match=r'Expected at least two seeds to tell a spread but got \[0\]'):
        compare_seeds(ours[:1], theirs[-1:])


def test_a_seed_that_mmengine_drew_is_read_from_the_log(tmp_path: Path) -> None:
    run = make_run(tmp_path / 'run', [40.0], config=recipe(randomness=dict(seed=None)))
    with pytest.raises(DataError, match=r'Expected the seed of .*run in its config or log but got none. Train with'):
        seed_of(read_run(run))
    (log,) = run.glob('*/*.log')
    log.write_text('System environment:\n    numpy_random_seed: 5\n    seed: 1234567\n    Distributed launcher: none\n')
    assert seed_of(read_run(run)) == 1234567
    assert seed_of(read_run(make_run(tmp_path / 'zero', [40.0], config=recipe(randomness=dict(seed=0))))) == 0


def test_other_differences_than_the_seed_are_told(tmp_path: Path) -> None:
    ours, theirs = seed_runs(tmp_path)
    other = dict(optimizer=dict(type='SGD', lr=0.2))
    config = distilled(randomness=dict(seed=3), optim_wrapper=other)
    theirs.append(make_run(tmp_path / 'kd3', [40.0], kd=True, config=config))
    ours.append(make_run(tmp_path / 'baseline3', [40.0], config=recipe(randomness=dict(seed=3))))
    warnings = compare_seeds(ours, theirs).warnings
    assert any(
        line.startswith('kd: not only the seed differs: optim_wrapper.optimizer.lr is 0.1 in seed 0, 0.2 in seed 3')
        for line in warnings
    )
    assert 'baseline: not only the seed differs: it ends at iteration 300 in seed 0, 100 in seed 3' in warnings
    assert any(line.startswith('seed 3: not the same recipe: optim_wrapper') for line in warnings)


def test_metrics_that_a_seed_lacks_are_left_out() -> None:
    row = SeedRow('x', (1.0, 3.0), (2.0, 2.0))
    assert row.gains == (1.0, -1.0)
    assert row.mean_gain == 0
    assert row.spread == pytest.approx(2**0.5)
