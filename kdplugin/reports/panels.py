"""One panel of a picture each: axes and numbers in, lines and labels drawn."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from kdplugin.reports.compare import Comparison
from kdplugin.reports.loss_terms import LossTerms, Series
from kdplugin.reports.rows import Row
from kdplugin.reports.tables import number

COLOURS = {'baseline': '#6b7280', 'kd': '#1d6fb8', 'teacher': '#d97706'}
NAMES = {'baseline': 'baseline', 'kd': 'KD', 'teacher': 'teacher'}
PAIR_COLOURS = ('#1b9e77', '#d95f02', '#7570b3', '#e7298a', '#66a61e', '#a6761d')
WINDOW = 5
MAX_CLASSES = 20


def metric_panel(axis: Axes, comparison: Comparison) -> None:
    """Draw the primary metric over training, selected validations as dots, the teacher as a dashed line."""
    row = comparison.metrics[0]
    for name in ('baseline', 'kd'):
        run, chosen = comparison.runs[name], comparison.selected[name]
        known = [value for value in run.validations if comparison.primary in value.metrics]
        steps, values = (
            [value.step for value in known],
            [value.metrics[comparison.primary] for value in known],
        )
        best = chosen.metrics[comparison.primary]
        label = f'{NAMES[name]}: {number(best, row.digits)} at {chosen.step}'
        axis.plot(steps, values, color=COLOURS[name], marker='.', linewidth=1.8, label=label)
        axis.plot(chosen.step, best, marker='o', markersize=8, color=COLOURS[name])
    if row.teacher is not None:
        label = f'teacher: {number(row.teacher, row.digits)}'
        axis.axhline(row.teacher, color=COLOURS['teacher'], linestyle='--', linewidth=1.5, label=label)
    finish(axis, f'validation {comparison.primary} (large dot: {comparison.rule})')
    axis.set_xlabel('epoch' if comparison.runs['baseline'].by_epoch else 'iteration', fontsize=9)
    axis.set_ylabel(comparison.primary, fontsize=9)
    axis.legend(fontsize=9)


def class_panel(axis: Axes, comparison: Comparison) -> None:
    """Draw a pair of bars for each class, the teacher as a tick; of many classes those that changed most."""
    rows = [row for row in comparison.per_class if row.delta is not None]
    mean = comparison.primary.rsplit('/', 1)[-1]
    title = f'{mean.replace("mIoU", "IoU").replace("mAP", "AP")} by class'
    if len(rows) > MAX_CLASSES:
        changed = sorted(rows, key=lambda row: -abs(row.delta or 0.0))[:MAX_CLASSES]
        rows = [row for row in rows if row in changed]
        title += f': the {MAX_CLASSES} that changed most'
    places = np.arange(len(rows))
    for name, shift, values in (
        ('baseline', -0.2, [row.baseline for row in rows]),
        ('kd', 0.2, [row.kd for row in rows]),
    ):
        axis.barh(places + shift, [value or 0.0 for value in values], 0.38, color=COLOURS[name], label=NAMES[name])
    marks = [(place, row.teacher) for place, row in zip(places, rows, strict=True) if row.teacher is not None]
    if marks:
        axis.scatter(
            [value for _, value in marks], [place for place, _ in marks],
            marker='|', s=160, linewidths=2, color=COLOURS['teacher'], label='teacher', zorder=3,
        )  # fmt: skip
    _label_bars(axis, rows)
    axis.set_yticks(places, [row.name for row in rows], fontsize=8)
    axis.invert_yaxis()
    finish(axis, title)
    axis.grid(False, axis='y')


def _label_bars(axis: Axes, rows: list[Row]) -> None:
    """Write each delta at the right edge, green where KD is better and red where it is worse."""
    top = max([value for row in rows for value in (row.baseline, row.kd, row.teacher) if value is not None] or [1.0])
    axis.set_xlim(0, top * 1.18)
    for place, row in enumerate(rows):
        delta = row.delta or 0.0
        axis.text(
            top * 1.17, place, number(row.delta, row.digits - 1, signed=True), va='center', ha='right', fontsize=8,
            color='#15803d' if delta > 0 else '#b91c1c' if delta < 0 else COLOURS['baseline'],
        )  # fmt: skip


def pair_panel(axis: Axes, title: str, baseline: Series, kd: Series) -> None:
    """Draw one loss of both runs."""
    _curve(axis, baseline, COLOURS['baseline'], 'baseline')
    _curve(axis, kd, COLOURS['kd'], 'KD')
    _zoom(axis, baseline, kd)
    finish(axis, title)
    axis.legend(fontsize=8)


def parts_panel(axis: Axes, kd: LossTerms) -> None:
    """Draw, on a logarithmic scale, the parts that the KD run's total is the sum of."""
    _curve(axis, kd.task, COLOURS['kd'], 'task')
    for index, (name, series) in enumerate(kd.weighted.items()):
        _curve(axis, series, PAIR_COLOURS[index % len(PAIR_COLOURS)], name)
    if any(value > 0 for series in (kd.task, *kd.weighted.values()) for value in series[1]):
        axis.set_yscale('log')
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (high / low) ** 0.25)
    finish(axis, "parts of KD's total (weighted)")
    axis.legend(fontsize=8, loc='upper right', ncols=3, handlelength=1.2, columnspacing=1.0)


def raw_panel(axis: Axes, name: str, kd: LossTerms) -> None:
    """Draw one raw distance with its weight written in, and the weight's curve where it moves."""
    index = list(kd.raw).index(name)
    _curve(axis, kd.raw[name], PAIR_COLOURS[index % len(PAIR_COLOURS)], name)
    _zoom(axis, kd.raw[name])
    steps, weights = kd.weights[name]
    finish(axis, f'KD term: {name} (raw)')
    if not weights:
        return
    moving = max(weights) > min(weights)
    text = f'weight {weights[0]:g} to {weights[-1]:g} (dotted)' if moving else f'weight {weights[0]:g}'
    axis.text(0.97, 0.93, text, transform=axis.transAxes, ha='right', va='top', fontsize=9)
    if moving:
        other = axis.twinx()
        other.plot(steps, weights, color='#9ca3af', linestyle=':', linewidth=1.2)
        other.set_ylim(0, max(weights) * 1.3)
        other.tick_params(labelsize=8, colors='#9ca3af')
        other.spines[:].set_visible(False)


def relative_panel(axis: Axes, kd: LossTerms) -> None:
    """Draw all raw distances in one panel, each as a fraction of where it began."""
    for index, (name, (steps, values)) in enumerate(kd.raw.items()):
        start = next((value for value in values if value > 0), 1.0)
        colour = PAIR_COLOURS[index % len(PAIR_COLOURS)]
        _curve(axis, (steps, [value / start for value in values]), colour, name)
    axis.set_ylim(bottom=0)
    finish(axis, 'raw KD terms, first value = 1')
    axis.legend(fontsize=8)


def smooth(values: list[float], window: int = WINDOW) -> list[float]:
    """Return the centred running median over ``window`` values, fewer at the ends: a spike leaves no trace.

    Example:
        >>> smooth([9.0, 3.0, 2.0, 8.0, 1.0], window=3)
        [6.0, 3.0, 3.0, 2.0, 4.5]
    """
    half = window // 2
    return [float(np.median(values[max(0, i - half) : i + half + 1])) for i in range(len(values))]


def _curve(axis: Axes, series: Series, colour: str, label: str) -> None:
    steps, values = series
    axis.plot(steps, values, color=colour, linewidth=0.8, alpha=0.3)
    axis.plot(steps, smooth(values), color=colour, linewidth=1.6, label=label)


def _zoom(axis: Axes, *curves: Series) -> None:
    """Begin at 0 and cut off spikes: the axis ends above all strong lines and 98 % of the pale ones."""
    logged = [value for _, curve in curves for value in curve if math.isfinite(value)]
    strong = [value for _, curve in curves for value in smooth(curve) if math.isfinite(value)]
    if logged and min(logged) >= 0:
        axis.set_ylim(0, 1.1 * max(*strong, float(np.percentile(logged, 98, method='lower'))) or 1.0)


def finish(axis: Axes, title: str, whole_numbers: bool = True) -> None:
    """Give a panel its title, grid and ticks; those of x are ``whole_numbers`` where they count steps."""
    axis.set_title(title, fontsize=10, loc='left')
    axis.grid(True, color='#e5e7eb', linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.spines[['top', 'right']].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=whole_numbers))
