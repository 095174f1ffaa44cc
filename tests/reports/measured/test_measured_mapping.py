from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdplugin.reports.measured.mapping import mapping_table

FILE = Path(__file__).parents[3] / 'docs/results/mapping.json'


def pair(name: str, right: int, lit_wsl: int | None, **ways: dict[str, Any]) -> dict[str, Any]:
    return {'name': name, 'tensors': 10, 'right': right, 'lit_wsl_right': lit_wsl, 'seconds': 0.25, 'ways': ways}


def test_rows_totals_and_ways_that_differ() -> None:
    same = {'right': 10, 'wrong': [], 'permitted_refusals': ['a', 'b'], 'difference_given_refused': 2e-6}
    content = {
        'pairs': [
            pair('A -> B', 10, 4, inputs=same, modules=same),
            pair('B -> A', 10, None, inputs=same, modules={**same, 'right': 8, 'wrong': ['x']}),
        ]
    }
    lines = mapping_table(content).splitlines()
    assert lines[0] == (
        '2 pairs: 20 of 20 tensors right; 1 wrong ones in all ways of asking together. lit_wsl: 4 of 10 (1 pairs).'
    )
    assert lines[4:] == [
        '| A -> B | 10 | 10 | 2 | 4 | 2.0e-06 | 0.2 |',
        '| B -> A | 10 | 10 (inputs), 8 (modules) | 2 | - | 2.0e-06 | 0.2 |',
    ]


def test_long_stacks_have_a_table_of_their_own() -> None:
    row = {'tensors': 5000, 'right': 4999, 'seconds': 3.14159, 'cpu_seconds': 1.5}
    text = mapping_table({'pairs': [], 'scale': {'same names': row}})
    assert text.splitlines()[-1] == '| same names | 5000 | 4999 | 3.14 | 1.50 |'


def test_the_measured_file_has_nothing_wrong() -> None:
    """A wrong tensor is worse than a refused one, however the mapper is asked."""
    for one in json.loads(FILE.read_text())['pairs']:
        assert [(one['name'], way) for way, found in one['ways'].items() if found.get('wrong')] == []
