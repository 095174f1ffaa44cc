"""A comparison as people take it away: a table, ``report.json`` and three pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kdplugin.reports.compare import Comparison
from kdplugin.reports.plots import draw_losses, draw_metric, draw_report
from kdplugin.reports.rows import Row
from kdplugin.reports.tables import new_table, number
from kdplugin.weights.reading.io import write_figure, write_text

RULES = {'best': 'the best validation of each run', 'last': 'the last validation of each run'}


def write_comparison(comparison: Comparison, out: str | Path) -> list[Path]:
    """Write ``report.json``, ``metric.png``, ``losses.png`` and ``report.png`` and return their paths."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {'metric.png': draw_metric, 'losses.png': draw_losses, 'report.png': draw_report}
    for name, draw in pictures.items():
        write_figure(draw(comparison), folder / name)
    text = json.dumps(comparison_json(comparison, folder), indent=2, allow_nan=False)
    write_text(folder / 'report.json', text + '\n')
    return [folder / name for name in ('report.json', *pictures)]


def comparison_json(comparison: Comparison, folder: Path) -> dict[str, Any]:
    """Return every number of a comparison for JSON, with paths relative to ``folder``."""
    runs = {}
    for name, run in comparison.runs.items():
        step = comparison.selected[name].step
        checkpoint = run.checkpoint(step)
        curve = [[value.step, _finite(value.metrics.get(run.primary))] for value in run.validations]
        runs[name] = {
            'work_dir': os.path.relpath(run.work_dir, folder),
            'selected_step': step,
            'checkpoint': os.path.relpath(checkpoint, folder) if checkpoint else None,
            'iterations': int(run.train[-1]['step']),
            'curve': curve,
        }
    return {
        'rule': comparison.rule,
        'primary_metric': comparison.primary,
        'steps_are': 'epochs' if comparison.runs['baseline'].by_epoch else 'iterations',
        'gap_to_teacher_closed_percent': comparison.gap_closed,
        'metrics': [_row_json(row) for row in comparison.metrics],
        'per_class': [_row_json(row) for row in comparison.per_class],
        'costs': [_row_json(row) for row in comparison.costs],
        'cost_setting': {
            'input': comparison.shape,
            'batch': 1,
            'device': 'cpu',
            'threads': comparison.threads,
        },
        'warnings': comparison.warnings,
        'notes': comparison.notes,
        'runs': runs,
        'versions': comparison.versions,
    }


def _finite(value: float | None) -> float | None:
    """JSON knows no NaN."""
    return value if value is not None and math.isfinite(value) else None


def _row_json(row: Row) -> dict[str, Any]:
    numbers = {
        'baseline': row.baseline,
        'kd': row.kd,
        'delta': row.delta,
        'improvement_percent': row.improvement,
        'teacher': row.teacher,
    }
    rounded = {name: None if value is None else round(value, 6) for name, value in numbers.items()}
    return {'name': row.name, **rounded, 'higher_is_better': row.higher_is_better}


def comparison_parts(comparison: Comparison) -> list[RenderableType]:
    """Return what a person reads: the rule, the tables, how costs were measured, warnings and notes."""
    steps = ', '.join(f'{_title(name)} at {value.step}' for name, value in comparison.selected.items())
    unit = 'epoch' if comparison.runs['baseline'].by_epoch else 'iteration'
    parts: list[RenderableType] = [
        Text(f'{RULES[comparison.rule]} by {comparison.primary} ({unit}: {steps})'),
        _table('metric', comparison.metrics, comparison),
    ]
    if comparison.gap_closed is not None:
        parts.append(Text(f'gap to the teacher closed: {comparison.gap_closed:.0f} %\n'))
    if comparison.per_class:
        parts.append(_table('class', comparison.per_class, comparison))
    parts += [_table('cost', comparison.costs, comparison), Text(_cost_setting(comparison))]
    parts += [Text(f'WARNING {line}') for line in comparison.warnings]
    parts += [Text(f'note: {line}') for line in comparison.notes]
    return parts


def _cost_setting(comparison: Comparison) -> str:
    lines = ['improvement: percent of the baseline, positive where KD is better. MB are 1e6 bytes.']
    if comparison.shape:
        height, width = comparison.shape
        lines.append(
            f'multiply-adds and latency: the network alone, one image of {height}x{width}, CPU, '
            f'{comparison.threads} thread(s), median of passes taken in turns.'
        )
    return '\n'.join(lines) + '\n'


def _table(head: str, rows: Sequence[Row], comparison: Comparison) -> Table:
    with_teacher = 'teacher' in comparison.runs
    table = new_table(head, 'baseline', 'KD', 'delta', 'improvement', *(['teacher'] if with_teacher else []))
    for row in rows:
        improvement = number(row.improvement, 1, signed=True)
        cells = [
            row.name,
            number(row.baseline, row.digits),
            number(row.kd, row.digits),
            number(row.delta, row.digits, signed=True),
            f'{improvement} %' if row.improvement is not None else improvement,
        ]
        table.add_row(*cells, *([number(row.teacher, row.digits)] if with_teacher else []))
    return table


def _title(name: str) -> str:
    return 'KD' if name == 'kd' else name
