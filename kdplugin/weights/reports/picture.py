"""A picture of a plan: which layer of the student came from where, and how much energy it kept."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdplugin.weights.plan import KINDS
from kdplugin.weights.reading.io import write_figure
from kdplugin.weights.reports.layer_links import LayerLinks, layer_links
from kdplugin.weights.reports.report import PlanReport, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = dict(zip(KINDS, ('#1b7837', '#5aae61', '#4393c3', '#8073ac', '#d9d9d9', '#d6604d'), strict=True))
NOT_MEASURED = '#888888'
MAX_LABELS = 70
"""More labels than this on one axis are thinned out."""
MAX_NUMBERS = 30
"""With more student layers than this, colours alone tell the energy."""


def draw_plan(report: PlanReport) -> Figure:
    """Draw student layers on x against source layers on y, coloured by the energy kept; below, what each is made of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    links = layer_links(report)
    width = min(max(4.5 + 0.2 * len(links.targets), 8.0), 18.0)
    height = min(max(3.6 + 0.17 * len(links.sources), 6.0), 14.0)
    figure = Figure(figsize=(width, height), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    lower = min(0.3, 1.6 / height)
    upper_axis, lower_axis = figure.subplots(2, 1, sharex=True, height_ratios=[1 - lower, lower])
    shares = ', '.join(f'{percent(share)} of the {unit}' for unit, share in report.coverage.items())
    figure.suptitle(f'{report.plan.source}  ->  {report.plan.target}\nloaded: {shares}', fontsize=10)
    _matrix(upper_axis, links)
    _bars(lower_axis, links)
    figure.legend(loc='outside lower center', ncols=len(KINDS), fontsize=8, frameon=False)
    return figure


def save_picture(report: PlanReport, path: str | Path) -> None:
    """Write ``draw_plan`` as a PNG file, atomically."""
    write_figure(draw_plan(report), path)


def _matrix(axis: Axes, links: LayerLinks) -> None:
    column = {name: index for index, name in enumerate(links.targets)}
    row = {name: index for index, name in enumerate(links.sources)}
    style: dict[str, Any] = dict(marker='s', s=_marker_size(links), linewidths=0.8, zorder=3)
    known = [link for link in links.links if link.energy is not None]
    unknown = [link for link in links.links if link.energy is None]
    points = axis.scatter(
        [column[link.target] for link in known], [row[link.source] for link in known], cmap='viridis', vmin=0, vmax=1,
        c=[energy for link in known if (energy := link.energy) is not None], **style,
    )  # fmt: skip
    for link in known if len(links.targets) <= MAX_NUMBERS else []:
        place = (column[link.target], row[link.source])
        axis.annotate(f'{link.energy:.2f}', place, (7, -2), textcoords='offset points', fontsize=6.5, color='#444444')
    axis.scatter(
        [column[link.target] for link in unknown], [row[link.source] for link in unknown], facecolors='none',
        edgecolors=NOT_MEASURED, **style,
    )  # fmt: skip
    bar = axis.figure.colorbar(points, ax=axis, pad=0.01, fraction=0.03, aspect=30)
    bar.set_label('energy kept, 1 - error²', fontsize=9)
    bar.ax.tick_params(labelsize=7)
    _ticks(axis.yaxis, links.sources, dark={link.source for link in links.links})
    axis.set_ylim(len(links.sources) - 0.4, -0.6)
    axis.grid(color='#eeeeee', linewidth=0.6, zorder=0)
    hollow = ', hollow: error not measured' if unknown else ''
    axis.set_ylabel(f'layer of the source\n(grey: unused{hollow})', fontsize=9)


def _marker_size(links: LayerLinks) -> float:
    return max(12.0, min(70.0, 3000.0 / max(len(links.targets), len(links.sources), 1)))


def _bars(axis: Axes, links: LayerLinks) -> None:
    bottom = [0.0] * len(links.targets)
    for kind in KINDS:
        shares = [links.kinds[name].get(kind, 0) / max(sum(links.kinds[name].values()), 1) for name in links.targets]
        if any(shares):
            axis.bar(range(len(shares)), shares, bottom=bottom, width=0.9, color=COLOURS[kind], label=kind)
            bottom = [below + share for below, share in zip(bottom, shares, strict=True)]
    axis.set_ylim(0, 1)
    axis.set_xlim(-0.6, len(links.targets) - 0.2)
    axis.set_ylabel('parameters', fontsize=9)
    axis.tick_params(axis='y', labelsize=7)
    _ticks(axis.xaxis, links.targets, rotation=90)
    axis.set_xlabel('layer of the student', fontsize=9)


def _ticks(axis: Any, names: list[str], dark: set[str] | None = None, rotation: float = 0) -> None:
    """Label an axis with names, without the path that all of them begin with."""
    parts = [name.split('.')[:-1] for name in names]
    shared = len(list(takewhile(lambda same: len(set(same)) == 1, zip(*parts, strict=False))))
    step = -(-len(names) // MAX_LABELS)
    shown = range(0, len(names), max(step, 1))
    axis.set_ticks(list(shown), ['.'.join(names[n].split('.')[shared:]) for n in shown], fontsize=7, rotation=rotation)
    for position, label in zip(shown, axis.get_ticklabels(), strict=True):
        if dark is not None and names[position] not in dark:
            label.set_color('#aaaaaa')
