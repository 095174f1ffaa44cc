from __future__ import annotations

from typing import Any

from kdplugin.reports.measured.step_time import step_time_table

ROW: dict[str, Any] = dict(
    case='gfl_neck', teacher_dtype='float32', student_ms=1555.0, teacher_ms=587.1, ours_ms=2105.6, mmrazor_ms=2142.9,
    ratio=0.983, ratio_quartiles=[0.951, 0.995], ours_to_mmrazor=0.982, teacher_difference=1.3e-6,
    peak_mb=dict(student=1500, ours=1960, SingleTeacherDistill=2100, FpnTeacherDistill=1970),
)  # fmt: skip


def test_a_row_says_what_was_measured() -> None:
    assert step_time_table({'rows': [ROW]}).splitlines()[2] == (
        '| gfl_neck | float32 | 1,555 | 587 | 2,106 | 2,143 | 0.983 | 0.951 to 0.995 | 0.982 | 1e-06 '
        '| 1,500, 1,960, 1,970 |'
    )


def test_what_was_not_measured_is_a_dash() -> None:
    row = {**ROW, 'mmrazor_ms': None, 'peak_mb': None}
    del row['teacher_difference'], row['ours_to_mmrazor']
    line = step_time_table({'rows': [row]}).splitlines()[2]
    assert line.endswith('| 2,106 | - | 0.983 | 0.951 to 0.995 | - | - | - |')
    row['peak_mb'] = dict(student=1500, ours=1960)
    assert step_time_table({'rows': [row]}).splitlines()[2].endswith('| 1,500, 1,960, - |')
