"""The measured starts: one student, one recipe, random weights or a teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from kdplugin.reports.tables import markdown, number

START_COLUMNS: dict[str, tuple[str, int]] = {
    'loss_0': ('loss at step 0', 3),
    'loss_100': ('at step 100', 3),
    'loss_end': ('at the end', 3),
    'miou': ('mIoU', 2),
    'steps_to_random': ("steps to random's final loss", 0),
    'seconds': ('seconds to project', 2),
    'peak_rss_mb': ('peak RSS, MB', 0),
}
"""Keys of a run in projection_start.json -> title and digits of the column."""


def projection_start_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/projection_start.json in Markdown.

    Args:
        content: ``runs``, a list of dicts with 'method' ('random', 'truncate', ...), 'layers', 'seed' and the keys of
            ``START_COLUMNS``, null where a run never got there; ``recipe``, one sentence on how they were trained.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in content['runs']:
        groups.setdefault((run['method'], '' if run['method'] == 'random' else run['layers']), []).append(run)
    seeds = len({run['seed'] for run in content['runs']})
    rows = [
        [method, layers, *(_cell(runs, *column) for column in _columns())] for (method, layers), runs in groups.items()
    ]
    table = markdown(['start', 'layers', *(title for title, _ in START_COLUMNS.values())], rows)
    return f'{table}\n\nMeans over {seeds} seeds, lowest and highest in brackets. {content["recipe"]}'


def _columns() -> list[tuple[str, int]]:
    return [(key, digits) for key, (_, digits) in START_COLUMNS.items()]


def _cell(runs: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    values = [run[key] for run in runs if run[key] is not None]
    if not values:
        return 'never' if key == 'steps_to_random' else '-'
    text = number(mean(values), digits)
    if len(set(values)) > 1:
        text += f' ({number(min(values), digits)} to {number(max(values), digits)})'
    return text if len(values) == len(runs) else f'{text}, {len(values)} of {len(runs)} runs'
