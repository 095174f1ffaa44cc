"""What a person sees of a production test."""

from __future__ import annotations

from rich.console import RenderableType

from kdplugin.production.checks import Check
from kdplugin.production.production_test import Outcome
from kdplugin.reports.tables import new_table, number


def outcome_parts(outcome: Outcome) -> list[RenderableType]:
    """Return the tables and lines of the report."""
    table = new_table('check', 'measured', 'limit', 'holds', title='The pipeline')
    for check in outcome.checks:
        table.add_row(check.name, *_cells(check), 'yes' if check.passed else 'NO')
    faults = new_table(
        'fault put in', 'check that has to fail', 'measured', 'limit', 'caught', title='Broken pipelines'
    )
    for fault in outcome.faults:
        faults.add_row(fault.name, fault.check.name, *_cells(fault.check), 'yes' if fault.caught else 'NO')
    marks = new_table('student', 'velocity loss', 'relative error of latents', title='On held-out prompts')
    for name, values in outcome.marks.items():
        marks.add_row(name, number(values['loss']), number(values['error'], 3))
    seconds = ', '.join(f'{stage} {number(value, 0)}' for stage, value in outcome.seconds.items())
    lines = [f'Seconds: {seconds}; together {number(sum(outcome.seconds.values()), 0)}.']
    if outcome.grid is not None:
        makers = ', '.join(['teacher', *(name for name in outcome.marks if name != 'best constant')])
        lines.append(f'{outcome.grid} shows latents, row by row: {makers}.')
    lines.append('Passed.' if outcome.passed else 'FAILED.')
    return [table, faults, marks, '\n'.join(lines)]


def _cells(check: Check) -> list[str]:
    return [value if isinstance(value, str) else number(value) for value in (check.value, check.limit)]
