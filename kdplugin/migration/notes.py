"""What a migration has to say, in the order in which a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

Kind = Literal['kept', 'converted', 'changed', 'left out', 'no counterpart']

TITLES: dict[Kind, str] = {
    'kept': 'Kept as it was',
    'converted': 'Converted: the same value by another number',
    'changed': 'Changed: it trains or reports otherwise',
    'left out': 'Left out: not needed here',
    'no counterpart': 'No counterpart',
}


@dataclass(frozen=True)
class Note:
    """One thing that a migration did or could not do.

    Args:
        kind: 'no counterpart' stops a migration unless leftovers are allowed.
        where: the part of the config or checkpoint.
        message: what was there, and what is there now.
    """

    kind: Kind
    where: str
    message: str


def leftovers(notes: Sequence[Note]) -> list[Note]:
    """Return the notes that say that something has no counterpart."""
    return [note for note in notes if note.kind == 'no counterpart']


def note_parts(notes: Sequence[Note]) -> list[RenderableType]:
    """Return the notes as a person reads them: by kind, what needs a decision last."""
    parts: list[RenderableType] = []
    for kind, title in TITLES.items():
        chosen = [note for note in notes if note.kind == kind]
        if chosen:
            table = Table.grid(padding=(0, 2))
            table.add_column(overflow='fold', max_width=34)
            table.add_column(overflow='fold')
            for note in chosen:
                table.add_row(f'  {note.where}', note.message)
            parts += [Text(title), table, Text('')]
    return parts
