"""Measured tables in the documentation: written from docs/results/*.json, never by hand.

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; tools/write_docs.py fills it, and a test
compares it with its JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from kdplugin.errors import DataError
from kdplugin.reports.tables import number

NOT_MEASURED = 'Not measured yet.'

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


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Example:
        >>> print(markdown(['a', 'b'], [['1', '2']]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [list(columns), ['---'] * len(columns), *map(list, rows)]
    return '\n'.join(
        '|' + '|'.join(cells) + '|' if n == 1 else f'| {" | ".join(cells)} |' for n, cells in enumerate(lines)
    )


TABLES: dict[str, tuple[str, str, Callable[[Mapping[str, Any]], str]]] = {
    'projection_start': ('docs/weight_projection.md', 'docs/results/projection_start.json', projection_start_table),
}
"""Name of a table -> the document it stands in, the results it comes from, and what makes it of them."""


def filled(text: str, name: str, table: str) -> str:
    """Return a document with a table between its marks.

    Raises:
        DataError: the document has no such marks.
    """
    pattern = re.compile(rf'(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)', re.DOTALL)
    if not pattern.search(text):
        raise DataError(f'Expected <!-- begin {name} --> and <!-- end {name} --> but got neither. Add them.')
    return pattern.sub(lambda found: f'{found[1]}{table}\n{found[2]}', text)


def written(root: Path, name: str) -> tuple[Path, str]:
    """Return the document of a table, and its text as it should be by the results that are there."""
    document, results, make = TABLES[name]
    path = root / results
    table = make(json.loads(path.read_text())) if path.is_file() else NOT_MEASURED
    return root / document, filled((root / document).read_text(), name, table)
