from __future__ import annotations

from typing import Any

from kdplugin.reports.measured.projection import projection_table


def coverage(parameters: float, why: str) -> dict[str, Any]:
    totals = {'all': {'tensors': 200, 'parameters': 1_000_000}}
    random = {'conv_out': {'parameters': 200_000, 'why': why}} if why else {}
    return dict(coverage={'parameters': parameters, 'tensors': 0.9}, totals=totals, random=random, layers=[0, 29])


CONTENT: dict[str, Any] = dict(
    machine={'threads': 1, 'cpus': 2, 'torch': '2.8.0'},
    teacher={'layout': 'Wan', 'bytes': 5_700_000_000, 'shards': 6, **coverage(0.8, 'no such layer.')},
    ours=[dict(method='svd', seconds=27.7, peak_rss_bytes=2e9, student_bytes=8e8, mean_relative_error_of_matrices=0.7)],
    layout_14b=[coverage(0.99949, '')],
)


def test_seconds_stand_beside_the_rivals() -> None:
    rival = {'runs': [dict(method='svd', seconds_of_16_blocks=554.0, times_our_cpu_seconds=20.0)]}
    assert projection_table({**CONTENT, 'wan_distiller': rival}).splitlines()[2] == (
        '| svd | 27.70 | 2,000 | 1,200 | 0.700 | 554.00 | 20.00 |'
    )


def test_without_a_rival_there_is_no_ratio() -> None:
    assert projection_table(CONTENT).splitlines()[2].endswith('| 0.700 | - | - |')


def test_what_is_random_and_why_is_said() -> None:
    text = projection_table(CONTENT)
    assert (
        'Coverage from 1.3B: 80.0 % of 1,000,000 parameters, 90.0 % of 200 tensors, from teacher layers 0, 29.' in text
    )
    assert 'Random: `conv_out` 200,000 (0.20 M): no such layer.' in text
    assert text.endswith('Random: nothing.')
    assert '99.9 % of' in text, 'what is not all never reads as all'
    assert '100.0 %' not in text
