from __future__ import annotations

import re

from kdplugin.reports.training_table import Term, training_table

TERMS = [
    Term('logits', raw=1.2, weight=0.5, weighted=0.6, temperature=4.0),
    Term('low', 3.123e-5, 0.32, 1e-5),
    Term('over', None, 0.0, 0.0),
]


def rows(text: str) -> dict[str, list[str]]:
    return {cells[0]: cells[1:] for line in text.splitlines() if (cells := re.split(r'\s{2,}', line.strip()))}


def test_each_term_has_its_raw_value_weight_temperature_and_share() -> None:
    table = rows(training_table('iteration 500', 0.01, 0.412, 0.6, TERMS, 1.20001, {'mIoU': 58.123}))
    assert table['task'] == ['-', '-', '-', '0.6000', '50.0 %']
    assert table['kd logits'] == ['1.200', '0.5', '4', '0.6000', '50.0 %']
    assert table['kd low'] == ['3.123e-05', '0.32', '-', '1.000e-05', '0.0 %']
    assert table['kd over'] == ['-', '0', '-', '0.000', '0.0 %']
    assert table['total'][:4] == ['-', '-', '-', '1.200']


def test_step_rate_time_and_metrics_frame_the_table() -> None:
    text = training_table('epoch 3', 2e-4, 0.4125, 1.0, [], 1.0, {'coco/bbox_mAP': 0.3456, 'mIoU': 58.126})
    assert text.splitlines()[0] == 'epoch 3   lr 0.0002   0.412 s per iteration'
    assert text.splitlines()[-1] == 'coco/bbox_mAP 0.3456   mIoU 58.13'


def test_before_the_first_validation_it_says_so() -> None:
    assert training_table('iteration 1', 0.1, 1.0, 1.0, [], 1.0, {}).splitlines()[-1] == 'no validation yet'


def test_a_nan_is_shown_and_has_no_share() -> None:
    nan = float('nan')
    table = rows(training_table('iteration 1', 0.1, 1.0, nan, [Term('low', nan, 1.0, nan)], nan, {}))
    assert table['task'][3:] == ['nan', '-']
    assert table['kd low'] == ['nan', '1', '-', 'nan', '-']


def test_a_total_of_zero_is_no_division_by_zero() -> None:
    assert rows(training_table('iteration 1', 0.1, 1.0, 0.0, [], 0.0, {}))['task'][-1] == '-'
