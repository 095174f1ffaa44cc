"""What a person reads after a config was checked."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kdplugin.preflight.findings import Finding, Level

TITLES: dict[Level, str] = {'error': 'Errors', 'warning': 'Warnings', 'note': 'Notes'}


def report_parts(findings: Sequence[Finding], config: str) -> list[RenderableType]:
    """Return the findings grouped by level, worst last, and a line that sums them up."""
    parts: list[RenderableType] = []
    for level in ('note', 'warning', 'error'):
        chosen = [finding for finding in findings if finding.level == level]
        if chosen:
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column(overflow='fold')
            for finding in chosen:
                table.add_row(f'  {finding.where}', finding.message)
            parts += [Text(TITLES[level]), table, Text('')]
    return [*parts, Text(summary(findings, config))]


def summary(findings: Sequence[Finding], config: str) -> str:
    """Return for example 'config.py: 2 errors, 1 warning. Correct the errors before training.'"""
    counts = {level: sum(finding.level == level for finding in findings) for level in ('error', 'warning')}
    text = ', '.join(f'{number or "no"} {level}{"" if number == 1 else "s"}' for level, number in counts.items())
    verdict = 'Correct the errors before training.' if counts['error'] else 'Ready to train.'
    return f'{config}: {text}. {verdict}'
