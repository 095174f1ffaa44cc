"""The table of docs/results/orion_digits.json."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import Any

from kdplugin.reports.tables import markdown, number

ROWS = {
    'teacher': 'teacher',
    'pruned': 'pruned, not trained',
    'no_kd': 'trained without the teacher',
    'kd': 'trained with the teacher',
    'random': 'trained from random weights',
}
"""Keys of the results -> what the table calls them."""


def orion_digits_table(content: Mapping[str, Any]) -> str:
    """Return the table in Markdown: mAP of each model, and its share of the teacher's.

    Args:
        content: by the keys of ``ROWS`` lists of mAP in percent, one for each seed; ``recipe``, how they were made.
    """
    teacher = mean(content['teacher'])
    rows = []
    for key, title in ROWS.items():
        values = content.get(key)
        if not values:
            continue
        spread = f' ({number(min(values), 2)} to {number(max(values), 2)})' if len(values) > 1 else ''
        share = number(100 * mean(values) / teacher, 1)
        rows.append([title, f'{number(mean(values), 2)}{spread}', f'{share} %', str(len(values))])
    table = markdown(['model', 'mAP', "of the teacher's", 'seeds'], rows)
    return f'{table}\n\nMeans, lowest and highest in brackets. {content["recipe"]}'
