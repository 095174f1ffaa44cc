from __future__ import annotations

import pytest

from kdplugin.reports.tables import count, new_table, number, render, show


@pytest.mark.parametrize(
    ('value', 'digits', 'signed', 'text'),
    [
        (2516853, 0, False, '2,516,853'),
        (1.005, 1, True, '+1.0'),
        (-1.25, 1, True, '-1.2'),
        (-0.0001, 2, True, '0.00'),
        (0.0001, 2, True, '0.00'),
        (None, 2, False, '-'),
        (float('nan'), 2, False, '-'),
    ],
)
def test_number(value: float | None, digits: int, signed: bool, text: str) -> None:
    assert number(value, digits, signed) == text


def test_count_adds_millions_to_large_numbers_only() -> None:
    assert count(2516853) == '2,516,853 (2.52 M)'
    assert count(900) == '900'


def test_render_is_plain_keeps_brackets_and_never_grows_wider() -> None:
    table = new_table('name', 'value', title='[red]not markup[/red] :smile:')
    table.add_row('backbone[0].' + 'x' * 80, '1.5')
    text = render(table, width=40)
    assert '[red]not markup[/red] :smile:' in text.replace('\n', ' ')
    assert '\x1b' not in text
    assert max(len(line) for line in text.splitlines()) <= 40
    assert text.count('x') == 80
    assert all(line == line.rstrip() for line in text.splitlines())


def test_show_is_plain_when_stdout_is_not_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    table = new_table('name', 'value')
    table.add_row('a', '1')
    show(table)
    assert capsys.readouterr().out == render(table) + '\n'
