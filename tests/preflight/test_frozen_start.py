from __future__ import annotations

from typing import Any

import pytest
from preflight_says import says

from kdplugin.preflight.frozen_start import check_frozen_start

RESTING = dict(type='EncoderDecoder', backbone=dict(type='ResNet', frozen_stages=1, norm_eval=True))
PLACES = ['model.backbone.frozen_stages', 'model.backbone.norm_eval']


def test_random_layers_do_not_rest() -> None:
    found = says(check_frozen_start, dict(model=RESTING))
    assert [(level, where) for level, where, _ in found] == [('warning', place) for place in PLACES]
    assert 'Write frozen_stages=-1, or begin with weights' in found[0][2]
    assert 'Write norm_eval=False, or begin with weights' in found[1][2]
    distilled = dict(type='kdplugin.Distiller', student=RESTING, frozen=['backbone'])
    found = says(check_frozen_start, dict(model=distilled))
    assert [where for _, where, _ in found] == [
        'model.frozen',
        *(place.replace('.', '.student.', 1) for place in PLACES),
    ]
    assert "['backbone'] begin with random ones. Leave out frozen, or begin" in found[0][2]


@pytest.mark.parametrize(
    'weights',
    [
        dict(load_from='x.pth'),
        dict(resume=True),
        dict(custom_hooks=[dict(type='kdplugin.WeightProjectionHook', source='x.pth')]),
        dict(model=dict(RESTING, init_cfg=dict(type='Pretrained', checkpoint='x.pth'))),
        dict(model=dict(RESTING, backbone=dict(RESTING['backbone'], checkpoint='x.pth'))),
        dict(model=dict(RESTING, backbone=dict(RESTING['backbone'], model_name='resnet18', pretrained=True))),
    ],
)
def test_what_begins_with_weights_may_rest(weights: dict[str, Any]) -> None:
    assert says(check_frozen_start, {'model': RESTING, **weights}) == []


def test_what_does_not_rest_needs_no_weights() -> None:
    moving = dict(type='ResNet', frozen_stages=-1, norm_eval=False)
    assert says(check_frozen_start, dict(model=dict(type='EncoderDecoder', backbone=moving))) == []
    assert says(check_frozen_start, dict(model=None)) == []
