"""What a person, or a program, reads after a config was checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from kdplugin.preflight.findings import Finding, Findings, Level

TITLES: dict[Level, str] = {'error': 'Errors', 'warning': 'Warnings', 'note': 'Notes'}
CLEAN, ERRORS, UNCHECKED = 0, 1, 2


def report_parts(findings: Sequence[Finding], config: str) -> list[RenderableType]:
    """Return the findings grouped by level, worst last, and a line that sums them up."""
    parts: list[RenderableType] = []
    for level in ('note', 'warning', 'error'):
        chosen = [finding for finding in findings if finding.level == level]
        if chosen:
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=max(len(finding.where) for finding in chosen) <= 36, overflow='fold')
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
    broken = getattr(findings, 'broken', [])
    if broken and not counts['error']:
        verdict = f'Could not check {", ".join(dict.fromkeys(broken))}.'
    return f'{config}: {text}. {verdict}'


def exit_code(findings: Findings) -> int:
    """Return 0 without errors, 1 with some, 2 if a check could not be made."""
    if findings.errors:
        return ERRORS
    return UNCHECKED if findings.broken else CLEAN


def as_json(findings: Findings, config: str, mode: str, seconds: float) -> dict[str, Any]:
    """Return the findings as plain values."""
    return {
        'config': config,
        'mode': mode,
        'exit': exit_code(findings),
        'errors': sum(finding.level == 'error' for finding in findings),
        'warnings': sum(finding.level == 'warning' for finding in findings),
        'not_checked': list(dict.fromkeys(findings.broken)),
        'seconds': round(seconds, 2),
        'findings': [
            dict(
                level=finding.level, check=finding.check, path=finding.where, expected=finding.parts.expected,
                found=finding.parts.found, cure=finding.parts.cure, message=finding.message,
            )
            for finding in findings
        ],
    }  # fmt: skip
