from __future__ import annotations

from kdplugin.reports.measured.architectures import architectures_table

CONTENT = {
    'mmdet': dict(
        total=40, ok=39, failed=[dict(folder='odd', reason='kd: TapError: silent', config='odd.py')],
        plain_model_does_not_train=[dict(folder='clrnet', reason='no data', config='clrnet.py')], not_examined_yet=2,
    ),
    'mmseg': dict(total=0, ok=0, failed=[], plain_model_does_not_train=[], not_examined_yet=50),
}  # fmt: skip


def test_shares_are_of_the_folders_that_train_and_failures_have_their_reason() -> None:
    assert architectures_table(CONTENT).splitlines()[2:] == [
        '| mmdet | 40 | 39 | 97.5 % | 1 | 2 |',
        '| mmseg | 0 | 0 | - | 0 | 50 |',
        '',
        'Not among those that distil:',
        '',
        '- mmdet `odd`: kd: TapError: silent',
    ]


def test_nothing_follows_where_nothing_failed() -> None:
    assert len(architectures_table({'mmseg': CONTENT['mmseg']}).splitlines()) == 3
