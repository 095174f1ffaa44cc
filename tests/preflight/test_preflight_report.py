from __future__ import annotations

import pytest

from kdplugin.preflight.findings import Finding
from kdplugin.preflight.report import report_parts, summary
from kdplugin.reports.tables import render

FINDINGS = [
    Finding('error', 'teacher', 'Expected a checkpoint file but a.pth does not exist. Check the path.'),
    Finding('note', 'student', 'EncoderDecoder, 10 parameters.'),
    Finding('warning', 'training step', 'Expected [a] but got [b]. Do c.'),
    Finding('error', 'pair logits', 'Expected x but got y. Do z.'),
]


def test_the_worst_comes_last_and_every_message_is_whole() -> None:
    text = render(*report_parts(FINDINGS, 'kd.py'))
    titles = [line for line in text.splitlines() if line in ('Errors', 'Warnings', 'Notes')]
    assert titles == ['Notes', 'Warnings', 'Errors']
    for finding in FINDINGS:
        assert any(
            line.split(finding.where)[0].isspace() and finding.message in line
            for line in text.splitlines()
            if finding.where in line
        )
    assert text.splitlines()[-1] == 'kd.py: 2 errors, 1 warning. Correct the errors before training.'


def test_long_messages_wrap_beside_their_place() -> None:
    text = render(*report_parts([Finding('error', 'teacher', 'word ' * 60)], 'kd.py'))
    lines = [line for line in text.splitlines() if 'word' in line]
    assert len(lines) > 2
    assert sum(line.count('word') for line in lines) == 60
    assert {line.index('word') for line in lines} == {lines[0].index('word')}


@pytest.mark.parametrize(
    ('levels', 'text'),
    [
        ([], 'a.py: no errors, no warnings. Ready to train.'),
        (['warning', 'note', 'warning'], 'a.py: no errors, 2 warnings. Ready to train.'),
        (['error'], 'a.py: 1 error, no warnings. Correct the errors before training.'),
    ],
)
def test_the_last_line_counts(levels: list, text: str) -> None:
    assert summary([Finding(level, 'x', 'y') for level in levels], 'a.py') == text
