"""``test_cfg`` and ``train_cfg`` of detectors: keys and values by which no box is predicted, or none suppressed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.loss_settings import is_number, student_parts

KEYS = ('score_thr', 'max_per_img', 'nms_pre', 'min_bbox_size', 'mask_thr_binary')
"""What heads read from the settings of their predictions."""
OTHERS = ('nms_post', 'iou_thr', 'nms_thr', 'mask_thr', 'conf_thr', 'filter_thr', 'max_num', 'nms')
"""What some read besides, and that is near to one of ``KEYS``."""


def check_boxes(found: Findings, config: Config) -> None:
    """Predictions are filtered by keys that are read, and by values that leave some."""
    for path, part in student_parts(config):
        if path.split('.')[-1] in ('test_cfg', 'rpn', 'rcnn', 'rpn_proposal'):
            _check_names(found, path, part)
            _check_values(found, path, part)
            _check_overlap(found, f'{path}.nms', part.get('nms'))
        kind = kind_of(part)
        number = part.get('num')
        if kind.endswith('Sampler') and is_number(number) and number <= 0:
            found.error(
                f'{path}.num', f'Expected a number > 0 but got {number}. No box is trained: write for example 512.'
            )
        high, low = part.get('pos_iou_thr'), part.get('neg_iou_thr')
        if kind.endswith('Assigner') and is_number(high) and is_number(low) and high < low:
            found.warning(
                f'{path}.pos_iou_thr',
                f'Expected pos_iou_thr of at least neg_iou_thr={low} but got {high}. Swap or correct them.',
            )


def _check_names(found: Findings, path: str, part: Mapping[str, Any]) -> None:
    """Of settings that are those of boxes by another key, which is read by its name alone."""
    if not {*KEYS, 'nms'} & set(part):
        return
    for key in (one for one in part if one not in (*KEYS, *OTHERS)):
        near = difflib.get_close_matches(str(key), [one for one in KEYS if one not in part], n=1, cutoff=0.7)
        if near:
            found.error(
                f'{path}.{key}',
                f'Expected {near[0]} but got {key!r}, which is not read. Did you mean {near[0]!r}?',
            )


def _check_values(found: Findings, path: str, part: Mapping[str, Any]) -> None:
    score = part.get('score_thr')
    if is_number(score) and not 0 <= score <= 1:
        found.error(
            f'{path}.score_thr',
            f'Expected a number from 0 to 1 but got {score}. No prediction would be kept: write for example 0.05.',
        )
    for key in ('max_per_img', 'nms_pre'):
        if is_number(part.get(key)) and part[key] == 0:
            found.error(
                f'{path}.{key}', f'Expected a number > 0 but got 0. No prediction would be kept: write {key}=1000.'
            )


def _check_overlap(found: Findings, path: str, nms: Any) -> None:
    overlap = nms.get('iou_threshold') if isinstance(nms, Mapping) else None
    if is_number(overlap) and not 0 < overlap <= 1:
        meant = f'write {overlap / 100:g}' if 1 < overlap <= 100 else 'write for example 0.6'
        found.error(
            f'{path}.iou_threshold',
            f'Expected a number from 0 to 1 but got {overlap}. No double would be taken away, or every one: {meant}.',
        )
