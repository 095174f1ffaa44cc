from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdplugin.errors import DataError
from kdplugin.reports.doc_tables import NOT_MEASURED, TABLES, filled, written

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('name', TABLES)
def test_documents_say_what_was_measured(name: str) -> None:
    """After a new measurement: python tools/write_docs.py."""
    path, text = written(ROOT, name)
    assert path.read_text() == text


def test_a_table_replaces_what_stood_between_its_marks() -> None:
    text = 'a\n<!-- begin x -->\nold\nolder\n<!-- end x -->\nb\n<!-- begin y -->\nkept\n<!-- end y -->\n'
    new = filled(text, 'x', r'| \1 |')
    assert new == text.replace('old\nolder', r'| \1 |')
    assert filled(new, 'x', r'| \1 |') == new


def test_a_document_without_marks_is_named() -> None:
    with pytest.raises(DataError, match=r'Expected <!-- begin x --> and <!-- end x --> but got neither\. Add them\.'):
        filled('text', 'x', 'table')


def test_what_is_not_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, 'x', ('page.md', 'x.json', lambda content: f'x is {content["x"]}'))
    (tmp_path / 'page.md').write_text('<!-- begin x -->\n<!-- end x -->\n')
    assert NOT_MEASURED in written(tmp_path, 'x')[1]
    (tmp_path / 'x.json').write_text(json.dumps({'x': 3}))
    assert written(tmp_path, 'x') == (tmp_path / 'page.md', '<!-- begin x -->\nx is 3\n<!-- end x -->\n')
