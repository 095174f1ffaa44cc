from __future__ import annotations

from kdplugin.reports.measured.orion_digits import orion_digits_table


def test_rows_by_hand() -> None:
    content = dict(teacher=[50.0], pruned=[10.0], no_kd=[40.0, 44.0], kd=[48.0, 49.0], recipe='So and so.')
    lines = orion_digits_table(content).splitlines()
    assert lines[0] == "| model | mAP | of the teacher's | seeds |"
    assert lines[2:6] == [
        '| teacher | 50.00 | 100.0 % | 1 |',
        '| pruned, not trained | 10.00 | 20.0 % | 1 |',
        '| trained without the teacher | 42.00 (40.00 to 44.00) | 84.0 % | 2 |',
        '| trained with the teacher | 48.50 (48.00 to 49.00) | 97.0 % | 2 |',
    ]
    assert lines[-1] == 'Means, lowest and highest in brackets. So and so.'
