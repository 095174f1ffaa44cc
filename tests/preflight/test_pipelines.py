from __future__ import annotations

from typing import Any

from preflight_says import places

from kdplugin.preflight.pipelines import all_steps, check_pipelines, pipelines_of

LOAD, LABELS, PACK = (
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
)
FLIP = dict(type='RandomFlip', prob=0.5)
WHERE = 'train_dataloader.dataset.pipeline'


def config(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return dict(
        default_scope='mmdet', train_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=list(steps))), **more
    )


def test_a_good_pipeline_is_no_finding() -> None:
    assert places(check_pipelines, config(LOAD, LABELS, FLIP, PACK)) == []
    assert places(check_pipelines, config(dict(type='Mine'), dict(type='Other'))) == []


def test_mistakes() -> None:
    assert places(check_pipelines, config(LOAD, LABELS, FLIP)) == [('error', WHERE)]
    assert places(check_pipelines, config(LOAD, LABELS, PACK, FLIP)) == [('error', WHERE)]
    assert places(check_pipelines, config(LOAD, FLIP, PACK)) == [('error', WHERE)]
    assert places(check_pipelines, config(FLIP, LOAD, LABELS, PACK)) == [('error', WHERE)]
    assert places(check_pipelines, config(LOAD, LABELS, dict(type='Normalize'), PACK)) == [('warning', WHERE)]


def test_labels_are_those_that_the_student_learns() -> None:
    masks = dict(
        type='kdplugin.Distiller', student=dict(type='MaskRCNN', roi_head=dict(mask_head=dict(type='FCNMaskHead')))
    )
    assert places(check_pipelines, config(LOAD, LABELS, PACK, model=masks)) == [('error', WHERE)]
    assert places(check_pipelines, config(LOAD, dict(LABELS, with_mask=True), PACK, model=masks)) == []
    boxes = dict(type='GFL', bbox_head=dict(type='GFLHead'))
    assert places(check_pipelines, config(LOAD, dict(LABELS, with_bbox=False), PACK, model=boxes)) == [('error', WHERE)]


def test_wrapped_data_sets_share_the_work() -> None:
    inner = dict(type='CocoDataset', pipeline=[LOAD, LABELS])
    outer = dict(type='MultiImageMixDataset', dataset=inner, pipeline=[dict(type='Mosaic'), PACK])
    wrapped = dict(default_scope='mmdet', train_dataloader=dict(dataset=outer))
    assert [path for path, _ in pipelines_of(wrapped, 'train_dataloader')] == [
        'train_dataloader.dataset.dataset.pipeline',
        WHERE,
    ]
    assert places(check_pipelines, wrapped) == []
    nested = dict(type='RandomChoice', transforms=[[FLIP], [dict(type='Resize')]])
    assert [step['type'] for step in all_steps([nested])] == ['RandomChoice', 'RandomFlip', 'Resize']


def test_labels_of_any_kind_are_labels() -> None:
    assert places(check_pipelines, config(LOAD, dict(type='LoadDepthAnnotation'), PACK)) == []
    assert places(check_pipelines, config(LOAD, dict(type='LoadPanopticAnnotations'), PACK)) == []


def test_a_pipeline_that_a_hook_switches_to_is_one_of_the_training() -> None:
    for steps, found in (((LOAD, LABELS, PACK), []), ((LOAD, LABELS), ['error']), ((LOAD, PACK), ['error']), ((), [])):
        hook = dict(type='PipelineSwitchHook', switch_epoch=8, switch_pipeline=list(steps))
        told = places(check_pipelines, config(LOAD, LABELS, PACK, custom_hooks=[hook]))
        assert told == [(level, 'custom_hooks.0.switch_pipeline') for level in found]
