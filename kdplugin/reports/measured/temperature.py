"""The table of docs/results/temperature.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdplugin.reports.tables import markdown, number

COLUMNS = ['T', "teacher's probabilities", 'their entropy, bits', 'T^2 KL', 'length of its gradient', 'without T^2']


def temperature_table(content: Mapping[str, Any]) -> str:
    """Return the table in Markdown, a row for each temperature.

    Args:
        content: ``rows``, dicts with 'temperature', 'teacher' (probabilities), 'entropy_bits', 'loss', 'gradient' and
            'gradient_without_square'.
    """
    rows = [
        [
            number(row['temperature'], 0),
            ', '.join(number(share, 3) for share in row['teacher']),
            number(row['entropy_bits'], 2),
            number(row['loss'], 3),
            number(row['gradient'], 3),
            number(row['gradient_without_square'], 4),
        ]
        for row in content['rows']
    ]
    return markdown(COLUMNS, rows)
