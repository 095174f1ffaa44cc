from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import build, detection_batch, detector
from method_models import mask_rcnn
from mmengine.config import ConfigDict
from torch import nn

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.step import run_step
from kdplugin.preflight.strides import check_strides, seen_maps


def two_stages() -> Any:
    """Return a detector of two stages without masks, of which the batch has none."""
    settings = mask_rcnn()
    settings['type'] = 'FasterRCNN'
    for name in ('mask_head', 'mask_roi_extractor'):
        del settings['roi_head'][name]
    return settings


def look(settings: Any) -> Findings:
    student = build(ConfigDict(settings))
    batch = detection_batch()
    found = Findings()
    step = run_step(student, None, batch)
    assert step.size == tuple(batch['inputs'].shape[-2:])
    check_strides(found, 'model.student', student, step.maps, step.size[0])
    assert not any(module._forward_pre_hooks for module in student.modules())
    return found


@pytest.mark.parametrize('settings', [detector(), two_stages()], ids=['one stage', 'two stages'])
def test_strides_of_working_models_are_right(settings: Any) -> None:
    assert look(settings) == []


def test_anchors_of_another_level_are_an_error() -> None:
    settings = detector()
    settings['bbox_head']['anchor_generator'].update(strides=[4, 8, 16, 32, 64])
    (finding,) = look(settings)
    assert (finding.level, finding.where) == ('error', 'model.student.bbox_head.anchor_generator.strides')
    assert 'about [8, 16, 32' in finding.message
    assert 'but got [4, 8, 16, 32, 64]' in finding.message


def test_boxes_are_read_at_the_stride_of_the_map() -> None:
    settings = two_stages()
    strides = [2 * one for one in settings['roi_head']['bbox_roi_extractor']['featmap_strides']]
    settings['roi_head']['bbox_roi_extractor']['featmap_strides'] = strides
    (finding,) = look(settings)
    assert finding.where == 'model.student.roi_head.bbox_roi_extractor.featmap_strides'
    assert f'but got {strides}' in finding.message


def test_what_works_on_no_maps_is_left_alone() -> None:
    class Odd(nn.Module):
        featmap_strides = (4,)

        def forward(self, number: int) -> int:
            return number

    odd = Odd()
    with seen_maps(nn.Sequential(odd)) as maps:
        odd(3)
    assert maps == {}
