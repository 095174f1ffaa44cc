"""The table of sizes."""

from __future__ import annotations

from kdplugin.reports.measured.orion_size import orion_size_table

ROW = dict(parameters=303388608, flops=1.5e12, flops_ratio=1.0, speedup=1.0)
CONTENT = dict(
    teacher=ROW,
    heads8=dict(ROW, parameters=253032384, flops_ratio=1.2887, speedup=1.314),
    half=dict(ROW, parameters=152262624, speedup=1.95),
    how=dict(flops='one image', speedup='in turns', torch='2.8', cpu='a CPU'),
)


def test_the_table() -> None:
    table = orion_size_table(CONTENT).splitlines()
    assert table[2] == '| teacher: 16 heads, 2730 neurons | 303,388,608 | 1,500.0 | 1.00 | 1.00 |'
    assert table[3].endswith('| 253,032,384 | 1,500.0 | 1.29 | 1.31 |')
    assert table[-1] == 'Operations: one image. Speed: in turns; torch 2.8, a CPU.'
