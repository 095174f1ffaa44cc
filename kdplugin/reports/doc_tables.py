"""Measured tables in the documentation: written from docs/results/*.json, never by hand.

A table stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; tools/write_docs.py fills it, and a test
compares it with its JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdplugin.errors import DataError
from kdplugin.reports.measured.architectures import architectures_table
from kdplugin.reports.measured.mapping import mapping_table
from kdplugin.reports.measured.orion_digits import orion_digits_table
from kdplugin.reports.measured.orion_size import orion_size_table
from kdplugin.reports.measured.projection import projection_table
from kdplugin.reports.measured.projection_start import projection_start_table
from kdplugin.reports.measured.pruning_scorers import pruning_scorers_table
from kdplugin.reports.measured.real_data import real_data_table
from kdplugin.reports.measured.step_time import step_time_table
from kdplugin.reports.measured.temperature import temperature_table
from kdplugin.reports.measured.wan_start import wan_start_table

NOT_MEASURED = 'Not measured yet.'

Make = Callable[[Mapping[str, Any]], str]

TABLES: dict[str, tuple[str, str, Make]] = {
    'orion_size': ('docs/pruning.md', 'docs/results/orion_size.json', orion_size_table),
    'pruning_scorers': ('docs/pruning.md', 'docs/results/pruning_scorers.json', pruning_scorers_table),
    'temperature': ('docs/distillation.md', 'docs/results/temperature.json', temperature_table),
    'real_data': ('docs/distillation.md', 'docs/results/real_data.json', real_data_table),
    'step_time': ('docs/distillation.md', 'docs/results/step_time.json', step_time_table),
    'architectures': ('docs/distillation.md', 'docs/results/architecture_sweep.json', architectures_table),
    'orion_digits': ('docs/orion.md', 'docs/results/orion_digits.json', orion_digits_table),
    'mapping': ('docs/results/mapping.md', 'docs/results/mapping.json', mapping_table),
    'projection_start': ('docs/weight_projection.md', 'docs/results/projection_start.json', projection_start_table),
    'projection': ('docs/weight_projection.md', 'docs/results/projection.json', projection_table),
    'wan_start': ('docs/wan.md', 'docs/results/wan_start.json', wan_start_table),
}
"""Name of a table -> the document it stands in, the results it comes from, and what makes it of them."""


def filled(text: str, name: str, table: str) -> str:
    """Return a document with a table between its marks.

    Raises:
        DataError: the document has no such marks.
    """
    pattern = re.compile(rf'(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)', re.DOTALL)
    if not pattern.search(text):
        raise DataError(f'Expected <!-- begin {name} --> and <!-- end {name} --> but got neither. Add them.')
    return pattern.sub(lambda found: f'{found[1]}{table}\n{found[2]}', text)


def written(root: Path, name: str) -> tuple[Path, str]:
    """Return the document of a table, and its text as it should be by the results that are there."""
    document, results, make = TABLES[name]
    path = root / results
    table = make(json.loads(path.read_text())) if path.is_file() else NOT_MEASURED
    return root / document, filled((root / document).read_text(), name, table)
