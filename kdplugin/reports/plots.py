"""The pictures of a comparison, drawn without pyplot: no display and no global state."""

from __future__ import annotations

import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kdplugin.reports.compare import Comparison
from kdplugin.reports.loss_terms import loss_terms
from kdplugin.reports.panels import (
    class_panel,
    metric_panel,
    pair_panel,
    parts_panel,
    raw_panel,
    relative_panel,
)
from kdplugin.reports.tables import number

WIDTH = 10.0
DPI = 120
"""Together 1200 pixels wide, at which every label is readable."""

COLUMNS = 3
LEGEND = 'iteration   (pale: as logged, strong: running median of five)'


def draw_metric(comparison: Comparison) -> Figure:
    """Draw the primary metric over training for baseline and KD, and the teacher's value as a dashed line."""
    figure = new_figure(5.2)
    metric_panel(figure.subplots(), comparison)
    return figure


def draw_losses(comparison: Comparison) -> Figure:
    """Draw the total, the task term, what KD's total is made of, each raw KD term and each task component."""
    baseline, kd = loss_terms(comparison.runs['baseline']), loss_terms(comparison.runs['kd'])
    components = [name for name in kd.components if name in baseline.components]
    small = len(kd.raw) + len(components)
    rows = 1 + math.ceil(small / COLUMNS)
    figure = new_figure(0.5 + 2.7 * rows)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten().tolist()
    pair_panel(axes[0], 'total loss (KD: task + KD terms)', baseline.total, kd.total)
    pair_panel(axes[1], 'task loss', baseline.task, kd.task)
    if kd.raw:
        parts_panel(axes[2], kd)
    else:
        axes[2].set_axis_off()
    panels = axes[COLUMNS:]
    for axis, name in zip(panels, kd.raw, strict=False):
        raw_panel(axis, name, kd)
    for axis, name in zip(panels[len(kd.raw) :], components, strict=False):
        pair_panel(axis, f'task: {name}', baseline.components[name], kd.components[name])
    for axis in panels[small:]:
        axis.set_axis_off()
    figure.supxlabel(LEGEND, fontsize=9)
    return figure


def draw_report(comparison: Comparison) -> Figure:
    """Draw the one picture for a README: the metric curve, the classes, the losses."""
    kd, baseline = loss_terms(comparison.runs['kd']), loss_terms(comparison.runs['baseline'])
    figure = new_figure(8.4)
    figure.suptitle(_headline(comparison), fontsize=13, fontweight='bold')
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.35, 1], squeeze=False)[:, 0]
    if comparison.per_class:
        left, right = top.subplots(1, 2, width_ratios=[1, 1.1])
        class_panel(right, comparison)
    else:
        left = top.subplots()
    metric_panel(left, comparison)
    axes = bottom.subplots(1, 3 if kd.raw else 1, squeeze=False)[0]
    pair_panel(axes[0], 'task loss', baseline.task, kd.task)
    if kd.raw:
        parts_panel(axes[1], kd)
        relative_panel(axes[2], kd)
    bottom.supxlabel(LEGEND, fontsize=9)
    return figure


def new_figure(height: float) -> Figure:
    """Return an empty figure of the usual width; ``height`` is in inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    return figure


def _headline(comparison: Comparison) -> str:
    row = comparison.metrics[0]
    text = f'{row.name}: baseline {number(row.baseline, row.digits)}, KD {number(row.kd, row.digits)}'
    text += f' ({number(row.delta, row.digits, signed=True)})'
    return text if row.teacher is None else f'{text}, teacher {number(row.teacher, row.digits)}'
