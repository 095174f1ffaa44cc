from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.pipeline_order import check_pipeline_order

IMAGE, LABELS, FLIP = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='RandomFlip', prob=0.5)
RESIZE, CROP = dict(type='Resize', scale=(64, 64)), dict(type='RandomCrop', crop_size=(48, 48))
PACK = dict(type='PackSegInputs')


def config(train: list[Any], val: list[Any], metric: str = 'IoUMetric', size: Any = (48, 48)) -> dict[str, Any]:
    return dict(
        model=dict(data_preprocessor=dict(size=size)), val_evaluator=dict(type=metric),
        train_dataloader=dict(dataset=dict(type='A', pipeline=train)),
        val_dataloader=dict(dataset=dict(type='A', pipeline=val)),
    )  # fmt: skip


def test_what_is_right_is_no_finding() -> None:
    train = [IMAGE, LABELS, RESIZE, CROP, FLIP, PACK]
    assert says(check_pipeline_order, config(train, [IMAGE, RESIZE, LABELS, PACK])) == []
    never = [IMAGE, dict(FLIP, prob=0), PACK]
    assert says(check_pipeline_order, config(train, never, 'CocoMetric')) == []
    assert says(check_pipeline_order, config([IMAGE, PACK], [], size=None)) == []
    assert says(check_pipeline_order, {}) == []


@pytest.mark.parametrize(
    ('train', 'val', 'level', 'where', 'message'),
    [
        ([IMAGE, CROP, LABELS, PACK], [IMAGE, LABELS, PACK], 'error', 'train_dataloader.dataset.pipeline',
         'RandomCrop before LoadAnnotations. The labels would stay where they were: load them first.'),
        ([IMAGE, LABELS, dict(CROP, crop_size=(64, 64)), PACK], [IMAGE, LABELS, PACK], 'warning',
         'model.data_preprocessor.size', 'crops, (64, 64), but got (48, 48). Give both the same.'),
        ([IMAGE, LABELS, PACK], [IMAGE, FLIP, LABELS, PACK], 'warning', 'val_dataloader.dataset.pipeline',
         'but got RandomFlip. The metric changes from run to run'),
        ([IMAGE, LABELS, PACK], [IMAGE, PACK], 'error', 'val_dataloader.dataset.pipeline', "'LoadAnnotations') before"),
        ([IMAGE, LABELS, PACK], [IMAGE, LABELS, RESIZE, PACK], 'error', 'val_dataloader.dataset.pipeline',
         'got Resize after LoadAnnotations'),
        ([IMAGE, LABELS, PACK], [IMAGE, LABELS, dict(PACK, meta_keys=('img_path',))], 'error',
         'val_dataloader.dataset.pipeline.2.meta_keys', "['ori_shape'] are not among ['img_path']. Add them."),
    ],
)  # fmt: skip
def test_orders_that_part_labels_from_images(
    train: list[Any], val: list[Any], level: str, where: str, message: str
) -> None:
    ((found, place, text),) = says(check_pipeline_order, config(train, val))
    assert (found, place) == (level, where)
    assert message in text


def test_boxes_are_compared_by_the_number_of_the_image() -> None:
    val = [IMAGE, dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape'))]
    ((_, where, text),) = says(check_pipeline_order, config([], val, 'CocoMetric'))
    assert where == 'val_dataloader.dataset.pipeline.1.meta_keys'
    assert "['img_id'] are not among" in text
    assert says(check_pipeline_order, config([], val, 'VOCMetric')) == []


def test_a_pipeline_that_a_hook_switches_to_loads_labels_first_too() -> None:
    steps = [dict(type='LoadImageFromFile'), dict(type='RandomFlip', prob=0.5), dict(type='LoadAnnotations')]
    for order, number in ((steps, 1), ([steps[0], steps[2], steps[1]], 0)):
        hook = dict(type='PipelineSwitchHook', switch_epoch=8, switch_pipeline=order)
        told = says(check_pipeline_order, dict(custom_hooks=[hook]))
        assert [(level, where) for level, where, _ in told] == [('error', 'custom_hooks.0.switch_pipeline')] * number
