"""Rendering shared by every table and text block: plain when it is not a terminal, never wider than asked."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from io import StringIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

WIDTH = 100
"""Columns of a text block that goes into a log file."""

MISSING = '-'


def new_table(*columns: str, title: str | None = None, caption: str | None = None) -> Table:
    """Return an empty table: the first column is text, the others are numbers and never wrap inside one."""
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, title_justify='left', caption_justify='left')
    for index, column in enumerate(columns):
        table.add_column(column, justify='left' if index == 0 else 'right', overflow='fold', no_wrap=index > 0)
    return table


def render(*parts: RenderableType, width: int = WIDTH) -> str:
    """Return ``parts`` as text without colours, at most ``width`` characters a line."""
    stream = StringIO()
    console = Console(
        file=stream,
        width=width,
        color_system=None,
        force_terminal=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    for part in parts:
        console.print(part)
    return '\n'.join(line.rstrip() for line in stream.getvalue().splitlines())


def show(*parts: RenderableType) -> None:
    """Print ``parts`` to stdout: in a terminal at its width, elsewhere plain and ``WIDTH`` wide."""
    if sys.stdout.isatty():
        console = Console(markup=False, highlight=False, emoji=False)
        for part in parts:
            console.print(part)
    else:
        print(render(*parts))


def number(value: float | None, digits: int = 4, signed: bool = False) -> str:
    """Write a number with ``digits`` decimals and thousands separators, ``-`` where there is none.

    Example:
        >>> number(2516853, 0), number(1.5, 2, signed=True), number(None)
        ('2,516,853', '+1.50', '-')
    """
    if value is None or math.isnan(value):
        return MISSING
    if round(value, digits) == 0:
        return f'{0:.{digits}f}'
    return f'{value:{"+" if signed else ""},.{digits}f}'


def count(value: int) -> str:
    """Write a number of parameters exactly, with its size in millions where that helps.

    Example:
        >>> count(2516853), count(900)
        ('2,516,853 (2.52 M)', '900')
    """
    return f'{value:,} ({value / 1e6:.2f} M)' if value >= 100_000 else f'{value:,}'


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Example:
        >>> print(markdown(['a', 'b'], [['1', '2']]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [list(columns), ['---'] * len(columns), *map(list, rows)]
    return '\n'.join(
        '|' + '|'.join(cells) + '|' if n == 1 else f'| {" | ".join(cells)} |' for n, cells in enumerate(lines)
    )
