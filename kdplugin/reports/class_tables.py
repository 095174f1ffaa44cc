"""Per-class metrics: from mmseg's text log, the only place it writes them, or from mmdet's scalars."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

AGREEMENT = 0.02
"""Largest gap between the mean of a printed column (two decimals) and the mean metric that mmseg logged."""


def read_class_tables(log: Path) -> list[dict[str, dict[str, float]]]:
    """Return the tables that mmseg's ``IoUMetric`` printed into a log, oldest first.

    Returns:
        {class: {column: value}} for each table.

    Example:
        ``| zero | 5.3 | 7.1 |`` under ``| Class | IoU | Acc |`` is ``{'zero': {'IoU': 5.3, 'Acc': 7.1}}``.
    """
    tables: list[dict[str, dict[str, float]]] = []
    columns: list[str] = []
    for line in log.read_text(encoding='utf-8', errors='replace').splitlines():
        cells = [cell.strip() for cell in line.split('|')[1:-1]] if line.startswith('|') else []
        if cells and cells[0] == 'Class':
            columns = cells[1:]
            tables.append({})
        elif columns and len(cells) == len(columns) + 1 and all(map(_is_number, cells[1:])):
            tables[-1][cells[0]] = dict(zip(columns, map(float, cells[1:]), strict=True))
        elif columns and not re.match(r'\+[-+]+$', line):
            columns = []
    return tables


def match_class_tables(
    tables: Sequence[Mapping[str, Mapping[str, float]]], means: Sequence[float], column: str
) -> list[dict[str, float]]:
    """Give each validation of a log its table: in order, and only where the mean agrees with what was logged.

    Args:
        tables: from ``read_class_tables`` on the log of the same process.
        means: the logged mean of each validation, in order (``mIoU`` in points).
        column: of the table, such as ``'IoU'``.

    Returns:
        {class: value} for each validation, empty where no table belongs to it.
    """
    found, remaining = [], list(tables)
    for mean in means:
        match: dict[str, float] = {}
        for index, table in enumerate(remaining):
            values = {name: row[column] for name, row in table.items() if column in row}
            known = [value for value in values.values() if not math.isnan(value)]
            if known and abs(sum(known) / len(known) - mean) <= AGREEMENT:
                match, remaining = values, remaining[index + 1 :]
                break
        found.append(match)
    return found


def class_scalars(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return {class: AP} from the ``coco/<class>_precision`` scalars of mmdet's ``classwise=True``."""
    pattern = re.compile(r'(?:.*/)?(.+)_precision$')
    return {match[1]: value for key, value in metrics.items() if (match := pattern.match(key))}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
