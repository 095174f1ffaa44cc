"""Pictures of what student and teacher see in an image: maps side by side, their difference, attention by head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import NDArray
from torch import Tensor

from kdplugin.distill.teachers.preprocessing import Preprocessing
from kdplugin.reports.seen_pairs import SeenLevel
from kdplugin.reports.tables import number

DPI = 110
PANEL = 2.5
"""Inches of a map's width."""
MAX_LEVELS = 8
CLIP = 0.995
"""The share of positions within the colour scale: one hot cell must not turn all others black."""
SMALLEST_SCALE = 0.1
UNITS = {False: 'energy / its mean', True: 'attention / uniform'}


def shown_image(inputs: Tensor, preprocessing: Preprocessing, shape: tuple[int, int] | None) -> NDArray[np.float32]:
    """Return an image (H, W, 3) in RGB from 0 to 1 as a network got it, without its padding.

    Args:
        inputs: preprocessed (C, H, W); mmcv reads BGR, which most preprocessors turn round.
        preprocessing: what is undone.
        shape: (H, W) before padding; None keeps all.
    """
    statistics = preprocessing.mean, preprocessing.std
    mean, std = (torch.tensor(value, device=inputs.device).view(-1, 1, 1) for value in statistics)
    image = (inputs.float() * std + mean)[..., : shape and shape[0], : shape and shape[1]].clamp(0, 255) / 255
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    return (image if preprocessing.channel_conversion else image.flip(0)).permute(1, 2, 0).cpu().numpy()


def draw_pair(levels: Sequence[SeenLevel], image: NDArray[np.float32], title: str) -> Figure:
    """Draw a row for each level: the image, the teacher's map, the student's, their difference, attention by head.

    Teacher and student of a row share one colour scale, which ends where 99.5 % of their positions are; the difference
    has its own, white at 0.

    Args:
        levels: of one pair; those after the first ``MAX_LEVELS`` are left out, which the title says.
        image: (H, W, 3) from 0 to 1.
        title: above all.
    """
    drawn = levels[:MAX_LEVELS]
    heads = bool(drawn[0].by_head)
    widths = [1.0, 1.0, 1.0, 1.0, 0.9] if heads else [1.0, 1.0, 1.0, 1.0]
    tall = PANEL * min(max(image.shape[0] / image.shape[1], 0.45), 1.5)
    figure = Figure(
        figsize=(PANEL * sum(widths) + 1.9, 0.75 + (tall + 0.45) * len(drawn)), dpi=DPI, layout='constrained'
    )
    FigureCanvasAgg(figure)
    left_out = f'\nthe first {len(drawn)} of {len(levels)} levels' if len(drawn) < len(levels) else ''
    figure.suptitle(title + left_out, fontsize=11)
    axes = figure.subplots(len(drawn), len(widths), width_ratios=widths, squeeze=False)
    for row, level in zip(axes, drawn, strict=True):
        _image(row[0], image, level)
        _maps(row[1], row[2], level)
        _difference(row[3], level)
        if heads:
            _bars(row[4], level)
    return figure


def _image(axis: Axes, image: NDArray[np.float32], level: SeenLevel) -> None:
    axis.imshow(image)
    _plain(axis, level.title or 'image')
    if level.mark is not None:
        height, width = image.shape[:2]
        place = [level.mark[1] * width - 0.5], [level.mark[0] * height - 0.5]
        axis.scatter(*place, marker='o', s=70, facecolors='none', edgecolors='white', linewidths=3)
        axis.scatter(*place, marker='o', s=70, facecolors='none', edgecolors='#dc2626', linewidths=1.5)


def _maps(left: Axes, right: Axes, level: SeenLevel) -> None:
    both = torch.cat([level.teacher.flatten(), level.student.flatten()]).float()
    top = _scale(both)
    for axis, side, values, shape in (
        (left, 'teacher', level.teacher, level.shapes[1]),
        (right, 'student', level.student, level.shapes[0]),
    ):
        drawn = _show(axis, values, cmap='viridis', low=0, high=top)
        _plain(axis, f'{side}\n{_readable(shape, bool(level.by_head))}')
    _bar(drawn, right, UNITS[bool(level.by_head)], 'max' if float(both.max()) > top else 'neither')


def _difference(axis: Axes, level: SeenLevel) -> None:
    if level.student.shape != level.teacher.shape:
        axis.set_axis_off()
        axis.text(0.5, 0.5, 'no difference:\nother sizes', ha='center', va='center', fontsize=9)
        return
    difference = (level.student - level.teacher).float()
    top = _scale(difference.abs())
    drawn = _show(axis, difference, cmap='RdBu_r', low=-top, high=top)
    known = [f'{name} {number(value, 3)}' for name, value in level.numbers.items() if value is not None]
    _plain(axis, f'student - teacher\n{", ".join(known[:2])}')
    _bar(drawn, axis, 'difference', 'both' if float(difference.abs().max()) > top else 'neither')


def _bars(axis: Axes, level: SeenLevel) -> None:
    places = range(len(level.by_head))
    axis.barh(places, level.by_head, color='#1d6fb8')
    axis.set_yticks(places, list(map(str, level.heads)), fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, max(max(level.by_head) * 1.05, 1e-6))
    axis.set_ylabel("teacher's head", fontsize=8)
    axis.tick_params(axis='x', labelsize=7)
    axis.locator_params(axis='x', nbins=4)
    axis.spines[['top', 'right']].set_visible(False)
    axis.set_title('KL by head\nmean of all queries', fontsize=9)


def _scale(values: Tensor) -> float:
    """Return the end of a colour scale."""
    finite = values[values.isfinite()].flatten()
    if not len(finite):
        return SMALLEST_SCALE
    return max(float(np.quantile(finite.cpu().numpy(), CLIP, method='higher')), SMALLEST_SCALE)


def _show(axis: Axes, values: Tensor, *, cmap: str, low: float, high: float) -> AxesImage:
    grid = values.float().cpu().numpy()
    row = len(grid) == 1
    return axis.imshow(grid, cmap=cmap, vmin=low, vmax=high, interpolation='nearest', aspect='auto' if row else 'equal')


def _bar(drawn: AxesImage, beside: Axes, label: str, extend: str) -> None:
    bar = beside.figure.colorbar(drawn, cax=beside.inset_axes((1.03, 0, 0.05, 1)), extend=extend)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _readable(shape: Sequence[int], attention: bool) -> str:
    if attention:
        return f'mean of {shape[0]} heads'
    return f'{shape[0]} channels{"".join(f" x {length}" for length in shape[1:])}'


def _plain(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
