"""A comparison over seeds as people take it away: tables, ``report.json``, pictures, one HTML file."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import RenderableType
from rich.text import Text

from kdplugin.reports import html_page
from kdplugin.reports.compare_seeds import SeedComparison, SeedRow
from kdplugin.reports.comparison_report import RULES, comparison_json
from kdplugin.reports.plots import draw_losses, draw_report
from kdplugin.reports.seed_plots import draw_class_gains, draw_seeds, gain_text
from kdplugin.reports.tables import new_table, number
from kdplugin.weights.reading.io import write_figure, write_text

Cells = list[list[str]]
SUMMARY = ('baseline', 'KD', 'mean gain', 'std of gains')
SPREAD = 'mean and, after ±, sample standard deviation over the seeds; gains are KD minus baseline of the same seed.'


def write_seed_comparison(comparison: SeedComparison, out: str | Path) -> list[Path]:
    """Write ``report.json``, ``seeds.png``, ``classes.png`` where there are classes, and ``report.html``."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {'seeds.png': draw_seeds(comparison)}
    if comparison.per_class:
        pictures['classes.png'] = draw_class_gains(comparison)
    for name, figure in pictures.items():
        write_figure(figure, folder / name)
    text = json.dumps(seed_json(comparison, folder), indent=2, allow_nan=False)
    write_text(folder / 'report.json', text + '\n')
    write_text(folder / 'report.html', seed_page(comparison, pictures))
    return [folder / name for name in ('report.json', *pictures, 'report.html')]


def seed_json(comparison: SeedComparison, folder: Path) -> dict[str, Any]:
    """Return every number of a comparison for JSON, with paths relative to ``folder``."""
    first = comparison_json(comparison.first, folder)
    shared = {key: first[key] for key in ('rule', 'primary_metric', 'steps_are', 'costs', 'cost_setting', 'versions')}
    runs = {
        str(seed): {name: os.path.relpath(run.work_dir, folder) for name, run in one.runs.items()}
        for seed, one in comparison.by_seed.items()
    }
    return {
        **shared,
        'seeds': list(comparison.by_seed),
        'metrics': [_row_json(row) for row in comparison.metrics],
        'per_class': [_row_json(row) for row in comparison.per_class],
        'gap_to_teacher_closed_percent': {str(seed): one.gap_closed for seed, one in comparison.by_seed.items()},
        'work_dirs': runs,
        'warnings': comparison.warnings,
        'notes': comparison.first.notes,
    }


def _row_json(row: SeedRow) -> dict[str, Any]:
    def rounded(values: Sequence[float]) -> list[float]:
        return [round(value, 6) for value in values]

    return {
        'name': row.name,
        'baseline': rounded(row.baseline),
        'kd': rounded(row.kd),
        'gains': rounded(row.gains),
        'mean_gain': round(row.mean_gain, 6),
        'standard_deviation_of_gains': round(row.spread, 6),
    }


def seed_cells(comparison: SeedComparison) -> Cells:
    """Return the table of the primary metric by seed, and a last line of means."""
    row = comparison.metrics[0]
    lines = [
        [str(seed), number(base, row.digits), number(kd, row.digits), number(gain, row.digits, signed=True)]
        for seed, base, kd, gain in zip(comparison.by_seed, row.baseline, row.kd, row.gains, strict=True)
    ]
    gain = f'{number(row.mean_gain, row.digits, signed=True)} ± {number(row.spread, row.digits)}'
    return [*lines, ['mean', _spread(row.baseline, row.digits), _spread(row.kd, row.digits), gain]]


def summary_cells(rows: Sequence[SeedRow]) -> Cells:
    """Return a line for each metric or class."""
    return [
        [
            row.name,
            _spread(row.baseline, row.digits),
            _spread(row.kd, row.digits),
            number(row.mean_gain, row.digits, signed=True),
            number(row.spread, row.digits),
        ]
        for row in rows
    ]


def _spread(values: Sequence[float], digits: int) -> str:
    return f'{number(statistics.fmean(values), digits)} ± {number(statistics.stdev(values), digits)}'


def _tables(comparison: SeedComparison) -> list[tuple[list[str], Cells]]:
    tables = [
        (['seed', 'baseline', 'KD', 'gain'], seed_cells(comparison)),
        (['metric', *SUMMARY], summary_cells(comparison.metrics)),
    ]
    return tables + ([(['class', *SUMMARY], summary_cells(comparison.per_class))] if comparison.per_class else [])


def seed_parts(comparison: SeedComparison) -> list[RenderableType]:
    """Return what a person reads in a terminal."""
    parts: list[RenderableType] = [
        Text(gain_text(comparison.metrics[0])), Text(f'{RULES[comparison.first.rule]}; {SPREAD}')
    ]  # fmt: skip
    for columns, cells in _tables(comparison):
        table = new_table(*columns)
        for line in cells:
            table.add_row(*line)
        parts.append(table)
    parts += [Text(f'WARNING {line}') for line in comparison.warnings]
    parts += [Text(f'note: {line}') for line in comparison.first.notes]
    return parts


def seed_page(comparison: SeedComparison, pictures: Mapping[str, Figure]) -> str:
    """Return the HTML file: the gain, tables, pictures of all seeds by file name, and each seed's own report."""
    by_seed, metrics, *classes = _tables(comparison)
    title = gain_text(comparison.metrics[0])
    parts = [html_page.paragraph(f'{RULES[comparison.first.rule]}; {SPREAD}')]
    parts += [html_page.paragraph(f'WARNING {line}', warning=True) for line in comparison.warnings]
    parts += [
        html_page.picture(pictures['seeds.png'], title),
        html_page.section('By seed', html_page.table(*by_seed)),
        html_page.section('All metrics', html_page.table(*metrics)),
    ]
    for columns, cells in classes:
        gains = html_page.picture(pictures['classes.png'], 'mean gain of each class')
        parts.append(html_page.section('By class', gains, html_page.table(columns, cells)))
    costs = [[row.name, number(row.baseline, row.digits), number(row.kd, row.digits)] for row in comparison.first.costs]
    parts.append(html_page.section('Costs', html_page.table(['cost', 'baseline', 'KD'], costs)))
    parts.append('<h2>Each seed</h2>')
    for seed, one in comparison.by_seed.items():
        drawn = [html_page.picture(draw(one), f'seed {seed}') for draw in (draw_report, draw_losses)]
        runs = ', '.join(f'{name} {run.work_dir}' for name, run in one.runs.items())
        parts.append(html_page.folded(f'seed {seed}', html_page.paragraph(runs), *drawn))
    parts += [html_page.paragraph(f'note: {line}') for line in comparison.first.notes]
    return html_page.page(title, *parts)
