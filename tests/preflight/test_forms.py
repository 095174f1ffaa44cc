from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.forms import check_forms

STEPS = [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')]
COCO = dict(type='CocoDataset', ann_file='a.json', data_prefix=dict(img='b'), metainfo=dict(classes=('a',)))


def loader(**dataset: Any) -> dict[str, Any]:
    return dict(train_dataloader=dict(dataset={**COCO, 'pipeline': STEPS, **dataset}))


def test_what_is_right_is_no_finding() -> None:
    wrapped = dict(type='MultiImageMixDataset', pipeline=STEPS, dataset={**COCO, 'pipeline': STEPS[:1]})
    for config in (
        {}, loader(), dict(train_dataloader=dict(dataset=wrapped)),
        dict(val_evaluator=[dict(type='CocoMetric')], param_scheduler=[dict(type='LinearLR')]),
        dict(optim_wrapper=dict(optimizer=dict(first=dict(type='SGD'), second=dict(type='SGD')))),
        dict(train_dataloader=dict(dataset=dict(type='kdplugin.PromptDataset'))),
    ):  # fmt: skip
        assert says(check_forms, config) == []


@pytest.mark.parametrize(
    ('config', 'where', 'cure'),
    [
        (dict(param_scheduler=[dict(begin=0)]), 'param_scheduler.0', "dict(type='MultiStepLR', ...)"),
        (dict(val_evaluator=dict(metric='bbox')), 'val_evaluator', "dict(type='CocoMetric', ...)"),
        (dict(optim_wrapper=dict(optimizer=dict(lr=0.1))), 'optim_wrapper.optimizer', "dict(type='SGD', ...)"),
        (loader(ann_file=None), 'train_dataloader.dataset.ann_file', 'Write ann_file='),
        (loader(metainfo=('a', 'b')), 'train_dataloader.dataset.metainfo', 'Write metainfo=dict('),
        (loader(pipeline=None), 'train_dataloader.dataset.pipeline', 'but got none. No image would be loaded'),
        (loader(pipeline=dict(STEPS[0])), 'train_dataloader.dataset.pipeline', 'Expected a list of transforms'),
        (loader(pipeline=[*STEPS, 'Resize']), 'train_dataloader.dataset.pipeline.2', "Write dict(type='Resize')"),
    ],
)
def test_forms_that_cannot_be_built(config: dict[str, Any], where: str, cure: str) -> None:
    ((level, place, text),) = says(check_forms, config)
    assert (level, place) == ('error', where)
    assert cure in text
