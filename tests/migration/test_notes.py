from __future__ import annotations

from kdplugin.migration.notes import Note, leftovers, note_parts
from kdplugin.reports.tables import render


def test_notes_are_grouped_and_what_needs_a_decision_is_last() -> None:
    notes = [
        Note('no counterpart', 'loss_a', 'is foreign.'),
        Note('kept', 'b', 'as it was.'),
        Note('no counterpart', 'loss_c', 'is foreign too.'),
    ]
    text = render(*note_parts(notes))
    assert text.index('Kept as it was') < text.index('as it was.') < text.index('No counterpart') < text.index('loss_c')
    assert 'Left out' not in text
    assert leftovers(notes) == [notes[0], notes[2]]
