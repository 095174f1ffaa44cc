from __future__ import annotations

from typing import Any

import pytest
from mmengine.registry import init_default_scope
from preflight_says import places, says

from kdplugin.preflight.evaluation import check_best, check_metrics, check_suited, metrics_of, reported

COCO = dict(type='CocoMetric', ann_file='data/coco/annotations/val.json', metric=['bbox', 'segm'])
IOU = dict(type='IoUMetric', iou_metrics=['mIoU'])


def test_metrics_are_found_in_every_form() -> None:
    assert [path for path, _ in metrics_of(dict(val_evaluator=COCO), 'val_evaluator')] == ['val_evaluator']
    assert [path for path, _ in metrics_of(dict(val_evaluator=[COCO, IOU]), 'val_evaluator')] == [
        'val_evaluator.0',
        'val_evaluator.1',
    ]
    wrapped = dict(val_evaluator=dict(type='Evaluator', metrics=[IOU]))
    assert [path for path, _ in metrics_of(wrapped, 'val_evaluator')] == ['val_evaluator.metrics.0']


def test_what_is_measured_exists() -> None:
    assert says(check_metrics, dict(val_evaluator=[COCO, IOU])) == []
    (finding,) = says(check_metrics, dict(val_evaluator=dict(IOU, iou_metrics=['mIou'])))
    assert finding[:2] == ('error', 'val_evaluator.iou_metrics')
    assert "Did you mean 'mIoU'?" in finding[2]
    assert places(check_metrics, dict(val_evaluator=dict(COCO, metric='mAP'))) == [('error', 'val_evaluator.metric')]


@pytest.mark.parametrize(('own', 'right'), [('annotations/val.json', True), ('annotations/test.json', False)])
def test_the_metric_reads_the_labels_of_the_images_that_are_shown(own: str, right: bool) -> None:
    loader = dict(dataset=dict(type='CocoDataset', data_root='data/coco/', ann_file=own))
    expected = [] if right else [('error', 'val_evaluator.ann_file')]
    assert places(check_metrics, dict(val_evaluator=COCO, val_dataloader=loader)) == expected


def best(name: Any, evaluator: Any) -> dict[str, Any]:
    return dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=name)), val_evaluator=evaluator)


@pytest.mark.parametrize(
    ('name', 'evaluator'),
    [
        ('coco/bbox_mAP', COCO), (['coco/segm_mAP_50', 'coco/bbox_mAP'], COCO), ('mIoU', IOU), ('auto', COCO),
        (None, COCO), ('anything', dict(type='MyMetric')), ('mine/bbox_mAP', dict(COCO, prefix='mine')),
    ],
)  # fmt: skip
def test_metrics_that_are_measured_choose_the_best(name: Any, evaluator: Any) -> None:
    assert says(check_best, best(name, evaluator)) == []


def test_metrics_that_are_not_measured_choose_nothing() -> None:
    (finding,) = says(check_best, best('bbox_mAP', COCO))
    assert finding[:2] == ('error', 'default_hooks.checkpoint.save_best')
    assert "Did you mean 'coco/bbox_mAP'?" in finding[2]
    assert places(check_best, best('mIoU', COCO)) == [('error', 'default_hooks.checkpoint.save_best')]
    assert places(check_best, best('mIoU', None)) == [('error', 'default_hooks.checkpoint.save_best')]


def test_names_are_those_that_the_metrics_give() -> None:
    """Compared with what mmseg and mmdet return themselves."""
    from mmdet.evaluation import CocoMetric
    from mmseg.evaluation import IoUMetric

    assert CocoMetric.default_prefix == 'coco'
    assert getattr(IoUMetric, 'default_prefix', None) is None
    assert reported(dict(val_evaluator=IOU)) == ['aAcc', 'mIoU', 'mAcc']
    assert 'coco/bbox_mAP_50' in (reported(dict(val_evaluator=COCO)) or [])


@pytest.mark.parametrize(
    ('scope', 'dataset', 'metric', 'cure'),
    [
        ('mmdet', 'CocoDataset', dict(type='mmseg.IoUMetric'), "Write type='CocoMetric'"),
        ('mmseg', 'CityscapesDataset', dict(type='mmdet.CocoMetric'), "Write type='IoUMetric'"),
        ('mmdet', 'CocoDataset', dict(type='CocoMetric', metric='bbox'), ''),
        ('mmseg', 'CityscapesDataset', IOU, ''),
    ],
)
def test_the_metric_suits_the_labels(scope: str, dataset: str, metric: dict[str, Any], cure: str) -> None:
    init_default_scope(scope)
    loader = dict(dataset=dict(type=dataset))
    found = says(check_suited, dict(default_scope=scope, val_dataloader=loader, val_evaluator=metric))
    assert [where for _, where, _ in found] == ['val_evaluator.type'] * bool(cure)
    assert all(cure in text for _, _, text in found)


@pytest.mark.parametrize(
    ('model', 'masks'),
    [
        (dict(type='GFL', bbox_head=dict(type='GFLHead')), False),
        (dict(type='kdplugin.Distiller', student=dict(type='FCOS'), teacher=dict(model=dict(type='MaskRCNN'))), False),
        (dict(type='MaskRCNN', roi_head=dict(mask_head=dict())), True),
        (dict(type='RTMDet', bbox_head=dict(type='RTMDetInsSepBNHead')), True),
        (dict(type='Mask2Former', panoptic_head=dict()), True),
    ],
)
def test_masks_are_measured_where_they_are_predicted(model: dict[str, Any], masks: bool) -> None:
    found = says(check_suited, dict(model=model, val_evaluator=COCO))
    assert [(level, where) for level, where, _ in found] == [('error', 'val_evaluator.metric')] * (not masks)
    assert all("leave 'segm' out" in text for _, _, text in found)


def test_panoptic_images_have_instances_in_a_file_of_their_own() -> None:
    loader = dict(dataset=dict(type='CocoPanopticDataset', ann_file='annotations/panoptic_val2017.json'))
    assert says(check_metrics, dict(val_evaluator=COCO, val_dataloader=loader)) == []


def test_masks_of_no_model_are_not_judged() -> None:
    assert says(check_suited, dict(val_evaluator=COCO)) == []


@pytest.mark.parametrize(
    ('changes', 'name', 'known'),
    [
        (dict(metric_items=['mAP_50']), 'coco/bbox_mAP', "['coco/bbox_mAP_50', 'coco/segm_mAP_50']"),
        (dict(prefix='mine'), 'coco/bbox_mAP', "Did you mean 'mine/bbox_mAP'"),
        (dict(format_only=True), 'coco/bbox_mAP', 'Remove format_only'),
        (dict(format_only=True), 'auto', 'Remove format_only'),
    ],
)
def test_settings_of_a_metric_rename_or_silence_it(changes: dict[str, Any], name: str, known: str) -> None:
    ((level, where, text),) = says(check_best, best(name, dict(COCO, **changes)))
    assert (level, where) == ('error', 'default_hooks.checkpoint.save_best')
    assert known in text


def test_names_that_depend_on_the_classes_are_not_judged() -> None:
    assert says(check_best, best('coco/person_precision', dict(COCO, classwise=True))) == []


@pytest.mark.parametrize(
    ('items', 'cure'), [(['AP'], 'Choose one'), (['mAP50'], "Did you mean 'mAP_50'"), ('mAP', "metric_items=['mAP']")]
)
def test_numbers_that_the_metric_does_not_have(items: Any, cure: str) -> None:
    ((level, where, text),) = says(check_metrics, dict(val_evaluator=dict(COCO, metric_items=items)))
    assert (level, where) == ('error', 'val_evaluator.metric_items')
    assert cure in text
    assert says(check_metrics, dict(val_evaluator=dict(COCO, metric_items=['mAP', 'AR@100']))) == []


@pytest.mark.parametrize(('name', 'right'), [('mIoU', False), (None, False), ('coco/bbox_mAP', True)])
def test_schedulers_wait_for_what_is_measured(name: str | None, right: bool) -> None:
    scheduler = dict(type='ReduceOnPlateauLR', rule='greater', **(dict(monitor=name) if name else {}))
    found = says(check_best, dict(param_scheduler=[scheduler], val_evaluator=COCO))
    assert [(level, where) for level, where, _ in found] == [('error', 'param_scheduler.0.monitor')] * (not right)


def test_a_measure_that_does_not_exist_says_nothing_of_the_best() -> None:
    settings = dict(val_evaluator=dict(type='IoUMetric', iou_metrics=['mIou']))
    assert (
        says(check_best, dict(settings, default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='mIoU'))))
        == []
    )
