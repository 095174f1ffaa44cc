"""The measured starts of an image student of a video teacher: random weights, or the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from kdplugin.reports.tables import markdown, number

COLUMNS: dict[str, tuple[str, int]] = {
    'loss_0': ('loss at step 0', 3),
    'loss_100': ('at step 100', 3),
    'loss_500': ('at step 500', 3),
    'error': ('error of the final latents', 3),
}
"""Keys of a run in wan_start.json -> title and digits of the column."""


def wan_start_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/wan_start.json in Markdown.

    Args:
        content: ``runs``, a list of dicts with 'start' ('random' or 'projected'), 'seed', the keys of ``COLUMNS`` and
            'constant_loss' and 'constant_error'; ``recipe``, a sentence on how they were trained.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in content['runs']:
        groups.setdefault(run['start'], []).append(run)
    rows = [
        [start, *(_cell(runs, key, digits) for key, (_, digits) in COLUMNS.items())] for start, runs in groups.items()
    ]
    first = content['runs'][0]
    constants = f'{number(first["constant_loss"], 3)} and {number(first["constant_error"], 3)}'
    table = markdown(['start', *(title for title, _ in COLUMNS.values())], rows)
    seeds = len({run['seed'] for run in content['runs']})
    return (
        f'{table}\n\nMeans over {seeds} seeds, lowest and highest in brackets. The best constant velocity and the best '
        f'constant picture have {constants}. {content["recipe"]}'
    )


def _cell(runs: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    values = [run[key] for run in runs]
    text = number(mean(values), digits)
    if len(set(values)) > 1:
        text += f' ({number(min(values), digits)} to {number(max(values), digits)})'
    return text
