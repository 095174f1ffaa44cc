"""Baseline against distillation, and the teacher beside them: numbers first, judged by one stated rule."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kdplugin.errors import DataError
from kdplugin.reports.cost_rows import cost_rows
from kdplugin.reports.model_cost import validation_shape
from kdplugin.reports.recipe import recipe_differences
from kdplugin.reports.rows import Row
from kdplugin.reports.run_log import Rule, RunLog, Validation, read_run

PACKAGES = ('kdplugin', 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg')


@dataclass(frozen=True)
class Comparison:
    """Everything the table, the JSON file and the pictures show."""

    runs: dict[str, RunLog]
    selected: dict[str, Validation]
    rule: Rule
    primary: str
    metrics: list[Row]
    per_class: list[Row]
    costs: list[Row]
    gap_closed: float | None
    warnings: list[str]
    notes: list[str]
    shape: tuple[int, int] | None
    threads: int
    versions: dict[str, str]


def compare(
    baseline: str | Path,
    kd: str | Path,
    teacher: str | Path | None = None,
    rule: Rule = 'best',
    shape: tuple[int, int] | None = None,
    with_costs: bool = True,
) -> Comparison:
    """Compare two finished runs of one recipe.

    Args:
        baseline: work dir of the run without distillation.
        kd: work dir of the run with it.
        teacher: work dir of the teacher's own training.
        rule: which validation stands for each run: its best by the primary metric, or its last.
        shape: height and width for multiply-adds and latency; None takes the baseline's validation size.
        with_costs: measure them, which takes seconds.

    Raises:
        DataError: a work dir cannot be read, or the runs do not share the primary metric.
    """
    runs = {'baseline': read_run(baseline), 'kd': read_run(kd)}
    if teacher is not None:
        runs['teacher'] = read_run(teacher)
    primary = runs['baseline'].primary
    for name, run in runs.items():
        known = list(run.validations[0].metrics)
        if primary not in known:
            raise DataError(
                f'Expected the metric {primary!r} of the baseline in the {name} run {run.work_dir} but got '
                f'{known}. Compare runs that are evaluated alike.'
            )
    selected = {name: run.select(rule) for name, run in runs.items()}
    notes = [f'{name}: {note}' for name, run in runs.items() for note in run.notes]
    metrics, missing = _metric_rows(selected, primary)
    notes += missing
    per_class = _class_rows(selected)
    if not per_class:
        notes.append('no per-class section: the runs hold no class table for the selected validations')
    shape = shape or validation_shape(runs['baseline'].config)
    costs, cost_notes = cost_rows(runs, selected, shape) if with_costs else ([], [])
    return Comparison(
        runs=runs,
        selected=selected,
        rule=rule,
        primary=primary,
        metrics=metrics,
        per_class=per_class,
        costs=costs,
        gap_closed=_gap_closed(metrics[0]),
        warnings=recipe_differences(runs['baseline'], runs['kd']),
        notes=notes + cost_notes,
        shape=shape,
        threads=torch.get_num_threads(),
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    """Return the versions of the packages that took part in this process."""
    loaded = {name: getattr(sys.modules.get(name), '__version__', None) for name in PACKAGES}
    return {name: str(version) for name, version in loaded.items() if version}


def _metric_rows(selected: Mapping[str, Validation], primary: str) -> tuple[list[Row], list[str]]:
    """Return the metrics that baseline and KD share, the primary one first, and a note about the others."""
    ours, theirs = selected['baseline'].metrics, selected['kd'].metrics
    shared = sorted(ours.keys() & theirs.keys(), key=lambda name: (name != primary, list(ours).index(name)))
    rows = [_row(name, {run: value.metrics.get(name) for run, value in selected.items()}) for name in shared]
    only = sorted(ours.keys() ^ theirs.keys())
    return rows, [f'left out, in one of the two runs only: {", ".join(only)}'] if only else []


def _class_rows(selected: Mapping[str, Validation]) -> list[Row]:
    ours, theirs = selected['baseline'].per_class, selected['kd'].per_class
    shared = [name for name in ours if name in theirs]
    return [_row(name, {run: value.per_class.get(name) for run, value in selected.items()}) for name in shared]


def _row(name: str, values: Mapping[str, float | None]) -> Row:
    """Make a metric's row: COCO's -1 (no such object) and NaN are no number; fractions get three decimals."""
    known = {run: None if value is None or not value >= 0 else value for run, value in values.items()}
    fraction = all(value is None or value <= 1 for value in known.values())
    return Row(
        name, known['baseline'], known['kd'], known.get('teacher'),
        digits=3 if fraction else 2, higher_is_better='loss' not in name,
    )  # fmt: skip


def _gap_closed(row: Row) -> float | None:
    """Return which percentage of the way from baseline to teacher KD went, None without a better teacher."""
    if row.delta is None or row.baseline is None or row.teacher is None or row.teacher <= row.baseline:
        return None
    return 100 * row.delta / (row.teacher - row.baseline)
