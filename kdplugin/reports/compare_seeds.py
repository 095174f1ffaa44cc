"""Baseline against distillation over several seeds: runs paired by their seed, means and how far gains spread."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdplugin.errors import DataError
from kdplugin.reports.compare import Comparison, compare
from kdplugin.reports.recipe import differences_among
from kdplugin.reports.rows import Row
from kdplugin.reports.run_log import Rule, RunLog, read_run

LOGGED_SEED = re.compile(r'^\s+seed: (\d+)\s*$', re.MULTILINE)


@dataclass(frozen=True)
class SeedRow:
    """One metric over seeds; ``baseline`` and ``kd`` are in the order of the seeds."""

    name: str
    baseline: tuple[float, ...]
    kd: tuple[float, ...]
    digits: int = 2

    @property
    def gains(self) -> tuple[float, ...]:
        """KD minus baseline of each seed."""
        return tuple(kd - base for base, kd in zip(self.baseline, self.kd, strict=True))

    @property
    def mean_gain(self) -> float:
        return statistics.fmean(self.gains)

    @property
    def spread(self) -> float:
        """Sample standard deviation of the gains, with n - 1 below the line."""
        return statistics.stdev(self.gains)


@dataclass(frozen=True)
class SeedComparison:
    """Comparisons by seed, and the rows that every seed has."""

    by_seed: dict[int, Comparison]
    metrics: list[SeedRow]
    per_class: list[SeedRow]
    warnings: list[str]

    @property
    def first(self) -> Comparison:
        """The comparison of the first seed, which alone has the costs."""
        return next(iter(self.by_seed.values()))


def compare_seeds(
    baselines: Sequence[str | Path],
    kds: Sequence[str | Path],
    teacher: str | Path | None = None,
    rule: Rule = 'best',
    shape: tuple[int, int] | None = None,
) -> SeedComparison:
    """Compare runs of one recipe in pairs of one seed, in the order of the seeds.

    Costs are measured for the first seed alone: the networks are the same.

    Args:
        baselines: work dirs of the runs without distillation.
        kds: work dirs of the runs with it, in any order.
        teacher: see ``compare``, as are ``rule`` and ``shape``.

    Raises:
        DataError: fewer than two pairs, a seed that is unknown, given twice, or without a partner; and see ``compare``.
    """
    pairs = paired_by_seed(baselines, kds)
    if len(pairs) < 2:
        raise DataError(
            f'Expected at least two seeds to tell a spread but got {sorted(pairs)}. Give more work dirs, or compare '
            'one pair of runs.'
        )
    found: dict[int, Comparison] = {}
    for seed, (baseline, kd) in pairs.items():
        found[seed] = compare(baseline, kd, teacher, rule, shape, with_costs=not found)
    warnings = []
    for name in ('baseline', 'kd'):
        warnings += differences_among({f'seed {seed}': one.runs[name] for seed, one in found.items()}, name)
    for seed, one in found.items():
        warnings += [f'seed {seed}: {line}' for line in one.warnings]
    rows = [[one.metrics for one in found.values()], [one.per_class for one in found.values()]]
    metrics, per_class = (_seed_rows(every) for every in rows)
    return SeedComparison(found, metrics, per_class, warnings)


def paired_by_seed(baselines: Sequence[str | Path], kds: Sequence[str | Path]) -> dict[int, tuple[Path, Path]]:
    """Return the work dirs of baseline and KD by seed, the smallest seed first.

    Raises:
        DataError: a seed is unknown, given twice, or without a partner.
    """
    ours, theirs = _by_seed(baselines, 'baseline'), _by_seed(kds, 'KD')
    alone = [
        f'seed {seed} ({side[seed]}) of {name} alone'
        for name, side, other in (('baseline', ours, theirs), ('KD', theirs, ours))
        for seed in sorted(side.keys() - other.keys())
    ]
    if alone:
        raise DataError(
            f'Expected a KD run for each baseline run of the same seed but got {"; ".join(alone)}. Leave out runs '
            'without a partner, or train the partner with --cfg-options randomness.seed=N.'
        )
    return {seed: (ours[seed], theirs[seed]) for seed in sorted(ours)}


def _by_seed(work_dirs: Sequence[str | Path], name: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for work_dir in work_dirs:
        seed = seed_of(read_run(work_dir))
        if seed in found:
            raise DataError(
                f'Expected one {name} run for each seed but {found[seed]} and {work_dir} both have seed {seed}. Leave '
                'one of them out.'
            )
        found[seed] = Path(work_dir)
    return found


def seed_of(run: RunLog) -> int:
    """Return the seed of a run: its config's, else the one that mmengine drew and wrote to the log.

    Raises:
        DataError: neither is there.
    """
    seed = (run.config.get('randomness') or {}).get('seed')
    if isinstance(seed, int):
        return seed
    for file in sorted(run.work_dir.glob('*/*.log')):
        match = LOGGED_SEED.search(file.read_text(encoding='utf-8', errors='replace'))
        if match:
            return int(match[1])
    raise DataError(
        f'Expected the seed of {run.work_dir} in its config or log but got none. Train with --cfg-options '
        'randomness.seed=N, or compare one pair of runs.'
    )


def _seed_rows(by_seed: Sequence[Sequence[Row]]) -> list[SeedRow]:
    """Return the rows that have numbers on both sides in every seed."""
    rows = []
    named: list[Mapping[str, Row]] = [{row.name: row for row in every} for every in by_seed]
    for name, first in named[0].items():
        every = [one.get(name) for one in named]
        ours = [row.baseline for row in every if row is not None and row.baseline is not None]
        theirs = [row.kd for row in every if row is not None and row.kd is not None]
        if len(ours) == len(theirs) == len(named):
            rows.append(SeedRow(name, tuple(ours), tuple(theirs), first.digits))
    return rows
