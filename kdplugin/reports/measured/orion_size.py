"""Size and speed of ORION's EVA-ViT-L, whole and pruned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdplugin.reports.tables import markdown, number

NAMES = {
    'teacher': 'teacher: 16 heads, 2730 neurons',
    'heads8': '8 heads, 2730 neurons',
    'half': '8 heads, 1365 neurons',
}
COLUMNS = ('in each of 24 blocks', 'parameters', 'GFLOPs', 'times fewer', 'times quicker on a CPU thread')


def orion_size_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/orion_size.json in Markdown, with how it was measured below.

    Args:
        content: 'teacher', 'heads8' and 'half', each with parameters, flops, flops_ratio and speedup; 'how'; see
            tools/benchmarks/orion_size.py.
    """
    rows = []
    for name, title in NAMES.items():
        row = content[name]
        flops, fewer = number(row['flops'] / 1e9, 1), number(row['flops_ratio'], 2)
        rows.append([title, number(row['parameters'], 0), flops, fewer, number(row['speedup'], 2)])
    how = content['how']
    return (
        f'{markdown(COLUMNS, rows)}\n\n'
        f'Operations: {how["flops"]}. Speed: {how["speedup"]}; torch {how["torch"]}, {how["cpu"]}.'
    )
