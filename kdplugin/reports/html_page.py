"""A report as one HTML file that needs nothing else: no script, no style sheet, pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from matplotlib.figure import Figure

STYLE = (
    'body{font:15px/1.5 system-ui,sans-serif;color:#111827;max-width:1250px;margin:2em auto;padding:0 1em}'
    'h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}'
    'table{border-collapse:collapse;margin:1em 0}'
    'th,td{padding:.25em .8em;text-align:right;border-bottom:1px solid #e5e7eb;font-variant-numeric:tabular-nums}'
    'th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #6b7280}'
    'img{max-width:100%}summary{cursor:pointer;font-weight:600}.warning{color:#b91c1c}'
)


def page(title: str, *parts: str) -> str:
    """Return a whole document.

    Args:
        title: as text.
        parts: of its body, as HTML.
    """
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n'
        + '\n'.join(parts)
        + '\n</body>\n</html>\n'
    )


def section(title: str, *parts: str) -> str:
    """Return a heading with what belongs under it."""
    return '\n'.join([f'<h2>{escape(title)}</h2>', *parts])


def folded(title: str, *parts: str) -> str:
    """Return parts that show themselves when their title is clicked."""
    return '\n'.join(['<details>', f'<summary>{escape(title)}</summary>', *parts, '</details>'])


def paragraph(text: str, warning: bool = False) -> str:
    """Return a paragraph of text, red if it warns.

    Example:
        >>> paragraph('a < b')
        '<p>a &lt; b</p>'
    """
    return f'<p class="warning">{escape(text)}</p>' if warning else f'<p>{escape(text)}</p>'


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of texts.

    Example:
        >>> table(['a'], [['1']])
        '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    """
    head = ''.join(f'<th>{escape(column)}</th>' for column in columns)
    lines = (''.join(f'<td>{escape(cell)}</td>' for cell in row) for row in rows)
    body = ''.join(f'<tr>{line}</tr>' for line in lines)
    return f'<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def picture(figure: Figure, says: str) -> str:
    """Return a figure as a PNG inside the document.

    Args:
        figure: of matplotlib, with a canvas.
        says: in words, for who cannot see it.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format='png')
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{escape(says)}" src="data:image/png;base64,{data}">'
