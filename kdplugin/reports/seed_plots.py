"""Pictures of a comparison over seeds: every run's curve, every seed's gain, gains by class."""

from __future__ import annotations

import statistics

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdplugin.reports.compare_seeds import SeedComparison, SeedRow
from kdplugin.reports.panels import COLOURS, MAX_CLASSES, NAMES, finish
from kdplugin.reports.plots import new_figure
from kdplugin.reports.tables import number


def draw_seeds(comparison: SeedComparison) -> Figure:
    """Draw the primary metric of all runs over training with its means, and baseline beside KD for each seed."""
    figure = new_figure(5.0)
    row = comparison.metrics[0]
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    figure.suptitle(gain_text(row), fontsize=13, fontweight='bold')
    _curves(left, comparison)
    _slopes(right, comparison, row)
    return figure


def gain_text(row: SeedRow) -> str:
    """Return for example 'mIoU: KD gains +9.99 on average over 3 seeds (standard deviation 2.73)'."""
    gain, spread = number(row.mean_gain, row.digits, signed=True), number(row.spread, row.digits)
    return f'{row.name}: KD gains {gain} on average over {len(row.gains)} seeds (standard deviation {spread})'


def draw_class_gains(comparison: SeedComparison) -> Figure:
    """Draw the mean gain of each class, with the standard deviation of the seeds as a whisker."""
    rows = comparison.per_class
    title = 'mean gain by class (whisker: standard deviation over seeds)'
    if len(rows) > MAX_CLASSES:
        changed = sorted(rows, key=lambda row: -abs(row.mean_gain))[:MAX_CLASSES]
        rows = [row for row in rows if row in changed]
        title += f': the {MAX_CLASSES} that changed most'
    figure = new_figure(1.2 + 0.3 * len(rows))
    axis = figure.subplots()
    gains = [row.mean_gain for row in rows]
    colours = [_sign_colour(gain) for gain in gains]
    axis.barh(range(len(rows)), gains, 0.7, color=colours, xerr=[row.spread for row in rows], ecolor='#374151')
    axis.axvline(0, color='#374151', linewidth=0.8)
    axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=8)
    axis.invert_yaxis()
    finish(axis, title, whole_numbers=False)
    axis.grid(False, axis='y')
    return figure


def _sign_colour(gain: float) -> str:
    return '#15803d' if gain > 0 else '#b91c1c' if gain < 0 else COLOURS['baseline']


def _curves(axis: Axes, comparison: SeedComparison) -> None:
    primary = comparison.first.primary
    for name in ('baseline', 'kd'):
        curves = []
        for one in comparison.by_seed.values():
            known = [value for value in one.runs[name].validations if primary in value.metrics]
            curves.append({value.step: value.metrics[primary] for value in known})
            axis.plot(
                list(curves[-1]), list(curves[-1].values()), color=COLOURS[name], linewidth=0.9, alpha=0.45, marker='.'
            )
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        means = [statistics.fmean(curve[step] for curve in curves) for step in steps]
        axis.plot(steps, means, color=COLOURS[name], linewidth=2.6, label=f'{NAMES[name]}, mean of the seeds')
    teacher = comparison.first.metrics[0].teacher
    if teacher is not None:
        label = f'teacher: {number(teacher, comparison.metrics[0].digits)}'
        axis.axhline(teacher, color=COLOURS['teacher'], linestyle='--', linewidth=1.5, label=label)
    finish(axis, f'validation {primary} of every run')
    axis.set_xlabel('epoch' if comparison.first.runs['baseline'].by_epoch else 'iteration', fontsize=9)
    axis.set_ylabel(primary, fontsize=9)
    axis.legend(fontsize=9)


def _slopes(axis: Axes, comparison: SeedComparison, row: SeedRow) -> None:
    """Draw a line from baseline to KD for each seed and write its gain beside it, apart where values are close."""
    values = zip(comparison.by_seed, row.baseline, row.kd, row.gains, strict=True)
    low, high = min(*row.baseline, *row.kd), max(*row.baseline, *row.kd)
    step = max(high - low, 1e-9) * 0.07
    place = -np.inf
    for seed, baseline, kd, gain in sorted(values, key=lambda value: value[2]):
        axis.plot([0, 1], [baseline, kd], color='#9ca3af', linewidth=1.2, zorder=1)
        axis.scatter([0, 1], [baseline, kd], color=[COLOURS['baseline'], COLOURS['kd']], s=36, zorder=2)
        place = max(kd, place + step)
        axis.text(
            1.08, place, f'seed {seed}: {number(gain, row.digits, signed=True)}', va='center', fontsize=9,
            color=_sign_colour(gain),
        )  # fmt: skip
    finish(axis, f'{row.name}, {comparison.first.rule} validation of each run')
    axis.set_xticks([0, 1], ['baseline', 'KD'], fontsize=9)
    axis.set_xlim(-0.25, 2.0)
    axis.set_ylim(low - 2 * step, max(high, place) + 2 * step)
    axis.grid(False, axis='x')
