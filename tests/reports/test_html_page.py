from __future__ import annotations

from html.parser import HTMLParser

from kdplugin.reports.html_page import folded, page, paragraph, picture, section, table
from kdplugin.reports.plots import new_figure

EMPTY = {'meta', 'img'}


class Balance(HTMLParser):
    """Keep which tags are open, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_every_tag_is_closed_and_text_stays_text() -> None:
    strange = '<script>alert("a & b")</script>'
    drawn = picture(new_figure(1.0), strange)
    whole = page(
        strange, section(strange, table([strange], [[strange]])), folded(strange, drawn), paragraph(strange, True)
    )
    read = Balance(whole)
    assert read.open == []
    assert read.text.count(strange) == 7
    assert '<script' not in whole
    assert whole.startswith('<!DOCTYPE html>')
    assert 'charset="utf-8"' in whole


def test_warnings_are_red() -> None:
    assert paragraph('x', warning=True) == '<p class="warning">x</p>'
