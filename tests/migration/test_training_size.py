from __future__ import annotations

from typing import Any

import pytest

from kdplugin.migration.training_size import training_size


def loader(*transforms: dict[str, Any]) -> dict[str, Any]:
    return dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=list(transforms))))


DET = dict(data_preprocessor=dict(pad_size_divisor=32))


@pytest.mark.parametrize(
    ('model', 'transforms', 'size'),
    [
        (dict(data_preprocessor=dict(size=(512, 1024))), [], (512, 1024)),
        (dict(data_preprocessor=dict(size=64)), [], (64, 64)),
        (DET, [dict(type='Resize', scale=(1333, 800))], (800, 1344)),
        (DET, [dict(type='mmdet.RandomChoiceResize', scales=[(1333, 640), (1333, 800)])], (800, 1344)),
        (dict(), [dict(type='Resize', scale=(100, 60))], (60, 100)),
        (DET, [dict(type='RandomFlip')], None),
    ],
)
def test_size_of_a_batch(model: dict[str, Any], transforms: list[dict[str, Any]], size: Any) -> None:
    assert training_size(model, loader(*transforms)) == size


def test_without_a_loader_nothing_is_known() -> None:
    assert training_size(DET, None) is None
