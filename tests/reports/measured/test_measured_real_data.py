from __future__ import annotations

from typing import Any

from kdplugin.reports.measured.real_data import real_data_table

RUN: dict[str, Any] = dict(
    data='bccd', metric='coco/bbox_mAP', teacher=50.8, baseline=[36.8, 34.2], kd=[40.6, 41.0], mean_gain=5.3,
    spread=2.12, kd_bf16=[40.2, 40.6],
)  # fmt: skip


def test_scores_stand_in_the_order_of_seeds() -> None:
    assert real_data_table({'runs': [RUN]}).splitlines()[2] == (
        '| bccd | coco/bbox_mAP | 50.80 | 36.8 34.2 | 40.6 41.0 | +5.30 | 2.12 | 40.2 40.6 |'
    )


def test_without_a_bf16_teacher_and_a_spread_there_is_a_dash() -> None:
    run = {**RUN, 'spread': None}
    del run['kd_bf16']
    assert real_data_table({'runs': [run]}).splitlines()[2].endswith('| +5.30 | - | - |')
