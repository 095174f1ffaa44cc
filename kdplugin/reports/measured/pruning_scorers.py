"""Which importance wins: mAP straight after pruning, by scorer and by how many heads go."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdplugin.reports.tables import markdown, number
from kdplugin.weights.reading.io import write_figure

STYLES = {
    'taylor': '#1b7837',
    'reconstruction': '#2166ac',
    'reconstruction_refit': '#67a9cf',
    'entropy': '#8073ac',
    'magnitude': '#d98b2b',
    'random': '#888888',
}
"""Colours by scorer, in the order of the legend."""
PANELS = {'sliced': 'sliced', 'compensated': 'proj fitted by least squares'}


def pruning_scorers_table(content: Mapping[str, Any]) -> str:
    """Return the table of docs/results/pruning_scorers.json in Markdown: means, lowest and highest in brackets.

    Args:
        content: 'teacher', mAP; 'rows', dicts of scorer, pruned (share of heads that go), seed, sliced, compensated
            (mAP, null where it was not measured); 'how'.
    """
    shares = sorted({row['pruned'] for row in content['rows']})
    kinds = [kind for kind in PANELS if any(row.get(kind) is not None for row in content['rows'])]
    columns = ['scorer', *(f'{share:.0%} of heads, {kind}' for kind in kinds for share in shares)]
    rows = [
        [f'`{scorer}`', *(_cell(_values(content['rows'], scorer, share, kind)) for kind in kinds for share in shares)]
        for scorer in _scorers(content)
    ]
    return f'{markdown(columns, rows)}\n\nTeacher: {number(content["teacher"], 3)} mAP. {content["how"]}'


def draw_scorers(content: Mapping[str, Any]) -> Figure:
    """Draw mAP against the share of heads that go, a line by scorer, from lowest to highest seed in pale.

    The axis of mAP spans what was measured; where that leaves zero out, its label says so.
    """
    kinds = [kind for kind in PANELS if any(row.get(kind) is not None for row in content['rows'])]
    figure = Figure(figsize=(4.6 * len(kinds) + 0.6, 4.0), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        for scorer in _scorers(content):
            shares = sorted({row['pruned'] for row in content['rows'] if row['scorer'] == scorer})
            found = [_values(content['rows'], scorer, share, kind) for share in shares]
            points = [(0.0, [content['teacher']]), *zip(shares, found, strict=True)]
            x = [share * 100 for share, values in points if values]
            y = [values for _, values in points if values]
            colour, dash = STYLES.get(scorer), '--' if scorer == 'random' else '-'
            axis.plot(x, list(map(statistics.mean, y)), dash, color=colour, marker='o', markersize=4, label=scorer)
            axis.fill_between(x, list(map(min, y)), list(map(max, y)), color=colour, alpha=0.15, linewidth=0)
        axis.set_title(PANELS[kind], fontsize=10)
        axis.set_xlabel('heads pruned, %', fontsize=9)
        axis.set_xticks([0, *sorted({row['pruned'] * 100 for row in content['rows']})])
        axis.margins(y=0.08)
        axis.grid(color='#eeeeee')
        axis.set_axisbelow(True)
    cut = ' (axis does not begin at 0)' if axes[0].get_ylim()[0] > 0 else ''
    axes[0].set_ylabel(f'mAP, before any training{cut}', fontsize=9)
    axes[0].legend(fontsize=8, frameon=False, loc='lower left')
    return figure


def save_scorers(content: Mapping[str, Any], path: str | Path) -> None:
    """Write ``draw_scorers`` as a PNG file, whole or not at all."""
    write_figure(draw_scorers(content), path)


def _scorers(content: Mapping[str, Any]) -> list[str]:
    found = {row['scorer'] for row in content['rows']}
    return [*(name for name in STYLES if name in found), *sorted(found - STYLES.keys())]


def _values(rows: Sequence[Mapping[str, Any]], scorer: str, share: float, kind: str) -> list[float]:
    chosen = [row for row in rows if row['scorer'] == scorer and row['pruned'] == share]
    return [row[kind] for row in chosen if row.get(kind) is not None]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return '-'
    low, high = number(min(values), 3), number(max(values), 3)
    return number(statistics.mean(values), 3) + (f' ({low} to {high})' if low != high else '')
