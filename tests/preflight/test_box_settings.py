from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.box_settings import check_boxes

TEST = dict(nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=20)


@pytest.mark.parametrize(
    'settings',
    [
        dict(test_cfg=TEST),
        dict(test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=1000), rcnn=TEST)),
        dict(test_cfg=dict(panoptic_on=True, max_per_image=100)),
        dict(test_cfg=dict(score_thr=0.0, max_per_img=-1)),
        dict(train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3))),
        dict(train_cfg=dict(sampler=dict(type='RandomSampler', num=256))),
    ],
)
def test_settings_that_leave_boxes(settings: dict[str, Any]) -> None:
    assert says(check_boxes, dict(model=dict(type='GFL', **settings))) == []


@pytest.mark.parametrize(
    ('settings', 'where', 'message'),
    [
        (dict(test_cfg={**TEST, 'score_thr': 5}), 'test_cfg.score_thr', 'write for example 0.05'),
        (dict(test_cfg={**TEST, 'max_per_img': 0}), 'test_cfg.max_per_img', 'write max_per_img=1000'),
        (dict(test_cfg={**TEST, 'nms': dict(iou_threshold=60)}), 'test_cfg.nms.iou_threshold', 'write 0.6'),
        (dict(test_cfg=dict(score_thr=0.1, max_per_image=20)), 'test_cfg.max_per_image', "Did you mean 'max_per_img'?"),
        (dict(test_cfg=dict(nms_pre=9, score_threshold=0.5)), 'test_cfg.score_threshold', "Did you mean 'score_thr'?"),
        (dict(train_cfg=dict(rpn_proposal=dict(nms_pre=0))), 'train_cfg.rpn_proposal.nms_pre', 'write nms_pre=1000'),
        (dict(train_cfg=dict(sampler=dict(type='RandomSampler', num=0))), 'train_cfg.sampler.num', 'write for example'),
    ],
)
def test_settings_that_leave_none(settings: dict[str, Any], where: str, message: str) -> None:
    ((level, place, told),) = says(check_boxes, dict(model=dict(type='GFL', **settings)))
    assert (level, place) == ('error', f'model.{where}')
    assert message in told


def test_thresholds_that_cross() -> None:
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.2, neg_iou_thr=0.3)
    ((level, place, told),) = says(check_boxes, dict(model=dict(train_cfg=dict(assigner=assigner))))
    assert (level, place) == ('warning', 'model.train_cfg.assigner.pos_iou_thr')
    assert 'Swap or correct them.' in told
