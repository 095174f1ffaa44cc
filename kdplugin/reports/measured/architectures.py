"""Which shipped architectures distil: docs/results/architecture_sweep.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdplugin.reports.tables import markdown, number

COLUMNS = ['package', 'folders that train', 'distil', 'of them', 'plain model does not train here', 'not examined']


def architectures_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/architecture_sweep.json in Markdown, and the folders that fail with reasons.

    Args:
        content: by package, 'total', 'ok', 'failed' (dicts with 'folder' and 'reason'), 'plain_model_does_not_train'
            and 'not_examined_yet'.
    """
    rows = [
        [
            package,
            number(found['total'], 0),
            number(found['ok'], 0),
            f'{number(100 * found["ok"] / found["total"], 1)} %' if found['total'] else '-',
            number(len(found['plain_model_does_not_train']), 0),
            number(found['not_examined_yet'], 0),
        ]
        for package, found in content.items()
    ]
    failed = [
        f'- {package} `{one["folder"]}`: {one["reason"]}'
        for package, found in content.items()
        for one in found['failed']
    ]
    return '\n'.join([markdown(COLUMNS, rows), *(['', 'Not among those that distil:', '', *failed] if failed else [])])
