"""What a run's total loss was made of, taken apart by the names under which training logs it.

``loss`` = task + sum of ``loss_kd_<pair>``, where ``loss_kd_<pair>`` = ``kd_<pair>_weight`` x
``kd_<pair>_raw`` and the task is logged as ``kd_task``, or is the total itself where nothing is distilled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kdplugin.reports.run_log import RunLog

Series = tuple[list[int], list[float]]

WEIGHTED = 'loss_kd_'
RAW = re.compile(r'kd_(.+)_raw$')
DEEP_SUPERVISION = re.compile(r'd\d+\.')
"""Repeated terms of a DETR's intermediate layers: the last layer's, without such a prefix, stand for them."""


@dataclass(frozen=True)
class LossTerms:
    """Curves as (iterations, values); ``raw``, ``weights`` and ``weighted`` are by pair."""

    total: Series
    task: Series
    components: dict[str, Series]
    raw: dict[str, Series]
    weights: dict[str, Series]
    weighted: dict[str, Series]


def loss_terms(run: RunLog) -> LossTerms:
    """Take a run's training scalars apart; ``components`` is empty where the task has a single one."""
    keys = run.train_keys()
    pairs = [match[1] for key in keys if (match := RAW.match(key))]
    names = [
        key
        for key in keys
        if 'loss' in key and key != 'loss' and not key.startswith(WEIGHTED) and not DEEP_SUPERVISION.match(key)
    ]
    return LossTerms(
        total=run.series('loss'),
        task=run.series('kd_task' if 'kd_task' in keys else 'loss'),
        components={name: run.series(name) for name in names} if len(names) > 1 else {},
        raw={pair: run.series(f'kd_{pair}_raw') for pair in pairs},
        weights={pair: run.series(f'kd_{pair}_weight') for pair in pairs},
        weighted={pair: run.series(f'{WEIGHTED}{pair}') for pair in pairs},
    )
