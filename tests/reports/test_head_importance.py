"""The picture of head importances."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from kdplugin.pruning.plan import PruningPlan
from kdplugin.reports.head_importance import draw_importance, save_importance

PLAN = PruningPlan(((0, 2), (1,), (0, 1, 2)), ((0,),) * 3, 3, 1, 4)
SCORES = torch.tensor([[3.0, 1.0, 2.0], [0.5, 5.0, 1.0], [1.0, 1.0, 1.0]])


def test_what_it_shows() -> None:
    figure = draw_importance(SCORES, PLAN, 'taylor')
    left, right = figure.axes[:2]
    assert 'by taylor: 6 of 9 heads stay' in figure.get_suptitle()
    shown = left.images[0].get_array()
    assert shown[0].tolist() == [1, 1 / 3, 2 / 3] or abs(float(shown[0, 1]) - 1 / 3) < 1e-6
    crosses = {tuple(map(int, point)) for point in left.collections[0].get_offsets()}
    assert crosses == {(1, 0), (0, 1), (2, 1)}
    widths = [round(float(bar.get_width()), 3) for bar in right.patches]
    assert widths == [5, 5, 3, 1, 1.5, 0]


def test_nothing_pruned_and_negative_scores() -> None:
    figure = draw_importance(SCORES - 2, PruningPlan.whole(3, 3, 1, 4), 'entropy')
    assert not figure.axes[0].collections
    assert float(figure.axes[0].images[0].get_array().min()) == 0


def test_it_is_written(tmp_path: Path) -> None:
    save_importance(SCORES, PLAN, 'taylor', tmp_path / 'heads.png')
    assert Image.open(tmp_path / 'heads.png').format == 'PNG'
