"""A picture of head importances by layer, and which heads a plan keeps."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from kdplugin.pruning.plan import PruningPlan
from kdplugin.weights.reading.io import write_figure

KEPT, GONE = '#1b7837', '#d9d9d9'


def draw_importance(scores: Tensor, plan: PruningPlan, scorer: str) -> Figure:
    """Draw a map of scores, heads on x and blocks on y, with a cross on pruned heads; beside it the sum of each block.

    Colours are shares of the largest score of their block, so that every block shows its own order; the bars tell how
    blocks compare.

    Args:
        scores: of heads [L, A].
        plan: which heads stay.
        scorer: how the title calls the scores.
    """
    depth, heads = scores.shape
    figure = Figure(figsize=(max(6.5, 0.38 * heads + 4.2), max(3.2, 0.27 * depth + 1.6)), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[0.38 * heads, 2.6])
    figure.suptitle(f'head importance by {scorer}: {sum(plan.head_counts)} of {depth * heads} heads stay', fontsize=11)
    _map(left, scores, plan)
    _sums(right, scores, plan)
    return figure


def save_importance(scores: Tensor, plan: PruningPlan, scorer: str, path: str | Path) -> None:
    """Write ``draw_importance`` as a PNG file, whole or not at all."""
    write_figure(draw_importance(scores, plan, scorer), path)


def _map(axis: Axes, scores: Tensor, plan: PruningPlan) -> None:
    depth, heads = scores.shape
    lowest = scores.amin(1, keepdim=True).clamp(max=0)
    shares = (scores - lowest) / (scores - lowest).amax(1, keepdim=True).clamp_min(1e-30)
    image = axis.imshow(shares.numpy(), cmap='viridis', vmin=0, vmax=1, aspect='auto')
    gone = [(head, block) for block in range(depth) for head in range(heads) if head not in plan.heads[block]]
    if gone:
        columns, rows = zip(*gone, strict=True)
        axis.scatter(columns, rows, marker='x', s=26, color='white', linewidths=1.4, zorder=2)
        axis.scatter(columns, rows, marker='x', s=26, color='black', linewidths=0.5, zorder=3)
    axis.set_xticks(range(heads), list(map(str, range(heads))), fontsize=7)
    axis.set_yticks(range(depth), list(map(str, range(depth))), fontsize=7)
    axis.set_xlabel('head (crossed: pruned)', fontsize=9)
    axis.set_ylabel('block', fontsize=9)
    bar = axis.figure.colorbar(image, ax=axis, pad=0.015, fraction=0.04)
    bar.set_label('share of the largest score of the block', fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _sums(axis: Axes, scores: Tensor, plan: PruningPlan) -> None:
    depth = len(scores)
    kept = [float(scores[block, list(plan.heads[block])].sum()) for block in range(depth)]
    gone = [float(scores[block].sum()) - kept[block] for block in range(depth)]
    axis.barh(range(depth), kept, color=KEPT, label='stays')
    axis.barh(range(depth), gone, left=kept, color=GONE, label='pruned')
    axis.set_xlabel('sum of scores', fontsize=9)
    axis.tick_params(axis='x', labelsize=7)
    axis.legend(fontsize=7, frameon=False, loc='lower left', bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, ncols=2)
    axis.margins(x=0.05)
