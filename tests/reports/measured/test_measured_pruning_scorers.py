"""Table and picture of scorers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from kdplugin.reports.measured.pruning_scorers import draw_scorers, pruning_scorers_table, save_scorers


def row(scorer: str, pruned: float, seed: int, sliced: float, compensated: float | None = None) -> dict[str, Any]:
    return dict(scorer=scorer, pruned=pruned, seed=seed, sliced=sliced, compensated=compensated)


ROWS = [
    row('random', 0.5, 0, 0.1),
    row('random', 0.5, 1, 0.3),
    row('taylor', 0.25, 0, 0.6),
    row('taylor', 0.5, 0, 0.5),
    row('taylor', 0.5, 1, 0.5),
]
CONTENT = dict(teacher=0.7, how='So.', rows=ROWS)


def test_the_table() -> None:
    lines = pruning_scorers_table(CONTENT).splitlines()
    assert lines[0] == '| scorer | 25% of heads, sliced | 50% of heads, sliced |'
    assert lines[2] == '| `taylor` | 0.600 | 0.500 |'
    assert lines[3] == '| `random` | - | 0.200 (0.100 to 0.300) |'
    assert lines[-1] == 'Teacher: 0.700 mAP. So.'


def test_the_picture_begins_at_the_teacher(tmp_path: Path) -> None:
    (axis,) = draw_scorers(CONTENT).axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.lines}
    assert lines == {'taylor': [[0, 0.7], [25, 0.6], [50, 0.5]], 'random': [[0, 0.7], [50, 0.2]]}
    assert 0 < axis.get_ylim()[0] < 0.2  # the differences are what one looks for
    assert axis.get_ylabel() == 'mAP, before any training (axis does not begin at 0)'
    fitted = dict(CONTENT, rows=[*ROWS, row('taylor', 0.25, 2, 0.6, 0.65)])
    assert [axis.get_title() for axis in draw_scorers(fitted).axes] == ['sliced', 'proj fitted by least squares']
    save_scorers(fitted, tmp_path / 'scorers.png')
    assert Image.open(tmp_path / 'scorers.png').format == 'PNG'
