"""The tables of a ``PlanReport``: totals, tensors, and what was left out and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from io import StringIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from kdplugin.weights.plan import KINDS
from kdplugin.weights.reports.layer_links import stack_lines
from kdplugin.weights.reports.report import PlanReport, Row

WIDTH = 120
NAMED = 3
"""How many names of a longer list are written out."""


def report_text(report: PlanReport, *, every_tensor: bool = False) -> str:
    """Return the tables a person reads; repeated layers share a line unless ``every_tensor``."""
    rows = report.rows
    parts: list[RenderableType] = [f'{report.plan.source} -> {report.plan.target}', _totals(report)]
    parts += _tensors([row for row in rows if row.kind not in ('random', 'refused')], every_tensor)
    parts += stack_lines(report)
    for kind in ('random', 'refused'):
        left = [row for row in rows if row.kind == kind]
        if left:
            parts.append(f'{kind}, not loaded:')
            parts.extend(_by_reason((row.target, row.reason) for row in left))
    if report.plan.unused:
        parts.append(f'source tensors that go nowhere: {len(report.plan.unused):,}')
        parts.extend(_by_reason(report.plan.unused.items()))
    parts.extend(f'note: {note}' for note in report.plan.notes)
    return _render(parts)


def _totals(report: PlanReport) -> Table:
    totals = report.totals
    whole = totals['all']
    table = _table('', 'tensors', '%', 'parameters', '%')
    for kind in (*KINDS[:4], 'loaded', *KINDS[4:], 'all'):
        cells = [cell for unit in ('tensors', 'parameters') for cell in _share(totals[kind][unit], whole[unit])]
        table.add_row(kind, *cells, end_section=kind in ('projected', 'loaded', 'refused'))
    return table


def _share(part: int, whole: int) -> tuple[str, str]:
    percent = 100 * part / max(whole, 1)
    return f'{part:,}', f'{min(percent, 99.99) if part < whole else percent:.2f}'


def _tensors(rows: list[Row], every_tensor: bool) -> list[RenderableType]:
    """Return a table with a line for each tensor, or for each group of layers; without exact copies then."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        if every_tensor or row.kind != 'exact':
            groups.setdefault((row.target,) if every_tensor else _group_key(row), []).append(row)
    table = _table('target <- source, operation', 'x', 'shape', 'kind', 'error')
    for group in groups.values():
        row = group[0]
        shapes = sorted({shape for row in group for shape in row.source_shapes if shape and shape != row.shape})
        sources = '\n     '.join(dict.fromkeys(map(_shared, zip(*(row.sources for row in group), strict=True))))
        lines = [
            _shared([row.target for row in group]),
            f'  <- {" ".join([sources, *(map(_shape, shapes) if len(shapes) < NAMED else [])])}',
            f'     {row.operation if len({row.operation for row in group}) == 1 else _pattern(row.operation)}',
        ]
        text = '\n'.join(lines[: 2 if row.operation == 'copy' else 3])
        shape = _shape(row.shape) if len({row.shape for row in group}) == 1 else 'several'
        table.add_row(text, str(len(group)), shape, row.kind, _errors(group))
    exact = 0 if every_tensor else sum(row.kind == 'exact' for row in rows)
    left_out = [f'exact copies are counted, not listed: {exact:,}'] if exact else []
    return [*([table] if groups else []), *left_out]


def _group_key(row: Row) -> tuple[object, ...]:
    """Group layers that differ in numbers only, and the tensors of a module that is renamed as a whole."""
    module, _, leaf = row.target.rpartition('.')
    if row.operation == 'copy' and row.sources[0].endswith(f'.{leaf}'):
        return row.kind, _pattern(module), _pattern(row.sources[0].removesuffix(f'.{leaf}'))
    return row.kind, _pattern(row.target), tuple(map(_pattern, row.sources)), row.shape, _pattern(row.operation)


def _pattern(name: str) -> str:
    return re.sub(r'(?<![^.])\d+(?![^.])', '*', name)


def _shared(names: Sequence[str]) -> str:
    """Return a name with '*' for the parts in which names differ."""
    parts = zip(*(name.split('.') for name in names), strict=True)
    return '.'.join(same[0] if len(set(same)) == 1 else '*' for same in parts)


def _shape(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape)) or 'scalar'


def _errors(rows: list[Row]) -> str:
    errors = sorted(row.error for row in rows if row.error is not None)
    if not errors:
        return '-'
    low, high = f'{errors[0]:.3f}', f'{errors[-1]:.3f}'
    return low if low == high else f'{low}-{high}'


def _by_reason(items: Iterable[tuple[str, str]]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for name, reason in items:
        groups.setdefault(reason or 'no reason given', []).append(name)
    return [
        f'  {len(names):,} x {reason}: {", ".join(names[:NAMED])}{", ..." if len(names) > NAMED else ""}'
        for reason, names in groups.items()
    ]


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        numbers = bool(table.columns)
        table.add_column(column, justify='right' if numbers else 'left', no_wrap=numbers, overflow='fold')
    return table


def _render(parts: list[RenderableType]) -> str:
    stream = StringIO()
    console = Console(file=stream, width=WIDTH, color_system=None, markup=False, highlight=False, emoji=False)
    for part in parts:
        console.print(part)
    return '\n'.join(line.rstrip() for line in stream.getvalue().splitlines())
