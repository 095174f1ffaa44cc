from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdplugin.errors import DataError
from kdplugin.reports.doc_tables import NOT_MEASURED, TABLES, filled, projection_start_table, written

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('name', TABLES)
def test_documents_say_what_was_measured(name: str) -> None:
    """After a new measurement: python tools/write_docs.py."""
    path, text = written(ROOT, name)
    assert path.read_text() == text


def run(method: str, seed: int, miou: float, steps: int | None, layers: str = 'uniform') -> dict[str, Any]:
    return dict(
        method=method, layers=layers, seed=seed, loss_0=2.0 + seed, loss_100=1.5, loss_end=0.5, miou=miou,
        steps_to_random=steps, seconds=1200.0, peak_rss_mb=800.4,
    )  # fmt: skip


def test_runs_are_summed_up_by_method_and_layers() -> None:
    runs = [
        run('random', 0, 40.0, None), run('random', 1, 42.0, None), run('svd', 0, 50.0, 120), run('svd', 1, 51.0, None),
        run('svd', 0, 48.0, 100, layers='first'),
    ]  # fmt: skip
    lines = projection_start_table({'runs': runs, 'recipe': '300 steps.'}).splitlines()
    assert lines[0].startswith('| start | layers | loss at step 0 | at step 100 | at the end | mIoU |')
    assert lines[2] == (
        '| random |  | 2.500 (2.000 to 3.000) | 1.500 | 0.500 | 41.00 (40.00 to 42.00) | never | 1,200.00 | 800 |'
    )
    assert lines[3].startswith(
        '| svd | uniform | 2.500 (2.000 to 3.000) | 1.500 | 0.500 | 50.50 (50.00 to 51.00) | 120, 1 of 2 runs |'
    )
    assert lines[4].startswith('| svd | first | 2.000 |')
    assert lines[-1] == 'Means over 2 seeds, lowest and highest in brackets. 300 steps.'


def test_a_table_replaces_what_stood_between_its_marks() -> None:
    text = 'a\n<!-- begin x -->\nold\nolder\n<!-- end x -->\nb\n<!-- begin y -->\nkept\n<!-- end y -->\n'
    new = filled(text, 'x', r'| \1 |')
    assert new == text.replace('old\nolder', r'| \1 |')
    assert filled(new, 'x', r'| \1 |') == new


def test_a_document_without_marks_is_named() -> None:
    with pytest.raises(DataError, match=r'Expected <!-- begin x --> and <!-- end x --> but got neither\. Add them\.'):
        filled('text', 'x', 'table')


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    document, results, _ = TABLES['projection_start']
    (tmp_path / results).parent.mkdir(parents=True)
    (tmp_path / document).write_text('<!-- begin projection_start -->\n<!-- end projection_start -->\n')
    assert NOT_MEASURED in written(tmp_path, 'projection_start')[1]
    (tmp_path / results).write_text(json.dumps({'runs': [run('svd', 0, 50.0, 3)], 'recipe': 'R.'}))
    assert '| svd | uniform |' in written(tmp_path, 'projection_start')[1]
