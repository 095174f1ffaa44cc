"""What distillation gains on real images: docs/results/real_data.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kdplugin.reports.tables import markdown, number

COLUMNS = ['data', 'metric', 'teacher', 'students without', 'distilled', 'mean gain', 'spread of gains', 'bf16 teacher']


def real_data_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/real_data.json in Markdown, a row for each data set.

    Args:
        content: ``runs``, dicts with 'data', 'metric', 'teacher', 'baseline' and 'kd' (scores by seed), 'mean_gain',
            'spread' (the sample standard deviation of the paired gains), and 'kd_bf16' where the teacher also ran in
            bfloat16.
    """
    rows = [
        [
            run['data'],
            run['metric'],
            number(run['teacher'], 2),
            _scores(run['baseline']),
            _scores(run['kd']),
            number(run['mean_gain'], 2, signed=True),
            number(run['spread'], 2),
            _scores(run.get('kd_bf16', ())),
        ]
        for run in content['runs']
    ]
    return markdown(COLUMNS, rows)


def _scores(values: Sequence[float]) -> str:
    return ' '.join(number(value, 1) for value in values) or '-'
