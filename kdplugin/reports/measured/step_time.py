"""The measured cost of a training step: docs/results/step_time.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdplugin.reports.tables import markdown, number

COLUMNS = [
    'case', 'teacher in', 'student, ms', 'teacher, ms', 'ours, ms', 'MMRazor, ms', 'ratio', 'middle half',
    'ours / MMRazor', 'teacher differs by', 'peak MB: student, ours, MMRazor',
]  # fmt: skip


def step_time_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/step_time.json in Markdown, a row for each case and precision.

    Args:
        content: ``rows``, dicts with 'case', 'teacher_dtype', 'student_ms', 'teacher_ms', 'ours_ms', 'mmrazor_ms',
            'ratio', 'ratio_quartiles', 'ours_to_mmrazor', 'teacher_difference' and 'peak_mb'; the last three may lack.
    """
    return markdown(COLUMNS, [_row(row) for row in content['rows']])


def _row(row: Mapping[str, Any]) -> list[str]:
    low, high = row['ratio_quartiles']
    difference = row.get('teacher_difference')
    return [
        row['case'],
        row['teacher_dtype'],
        *(number(row.get(f'{name}_ms'), 0) for name in ('student', 'teacher', 'ours', 'mmrazor')),
        number(row['ratio'], 3),
        f'{number(low, 3)} to {number(high, 3)}',
        number(row.get('ours_to_mmrazor'), 3),
        '-' if difference is None else f'{difference:.0e}',
        _memory(row.get('peak_mb') or {}),
    ]


def _memory(peaks: Mapping[str, int]) -> str:
    if not peaks:
        return '-'
    rivals = [value for name, value in peaks.items() if name not in ('student', 'ours')]
    return ', '.join(number(value, 0) for value in (peaks['student'], peaks['ours'], min(rivals, default=None)))
