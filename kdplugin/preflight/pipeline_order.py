"""Do transforms come in an order, and with settings, by which labels and images stay together?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from kdplugin.preflight.evaluation import metrics_of
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.pipelines import loads_labels, pipelines_of, switched_pipelines
from kdplugin.preflight.preprocessor import preprocessors

MOVING = ('Resize', 'RandomResize', 'RandomChoiceResize', 'RandomFlip', 'RandomCrop', 'RandomRotate', 'RandomAffine')
"""Transforms that move labels with the image, if those are there."""
CHANCE = (
    'RandomResize', 'RandomChoiceResize', 'RandomFlip', 'RandomCrop', 'RandomRotate', 'RandomAffine', 'RandomErasing',
    'PhotoMetricDistortion', 'Mosaic', 'CachedMosaic', 'MixUp', 'CachedMixUp', 'YOLOXHSVRandomAug', 'CutOut',
    'CopyPaste',
)  # fmt: skip
"""Transforms that give another image each time."""
PACKERS = ('PackDetInputs', 'PackSegInputs')


def check_pipeline_order(found: Findings, config: Config) -> None:
    """Labels are loaded before images move, and validation shows whole images that can be told apart."""
    for path, steps in (*pipelines_of(config, 'train_dataloader'), *switched_pipelines(config)):
        _check_labels_first(found, path, steps)
        _check_crop(found, config, path, steps)
    metrics = [kind_of(metric) for _, metric in metrics_of(config, 'val_evaluator')]
    for path, steps in pipelines_of(config, 'val_dataloader'):
        _check_chance(found, path, steps)
        if 'IoUMetric' in metrics:
            _check_label_images(found, path, steps)
        _check_meta(found, path, steps, metrics)


def _loads(steps: Sequence[Mapping[str, Any]]) -> int | None:
    kinds = [kind_of(step) for step in steps]
    return next((number for number, kind in enumerate(kinds) if loads_labels(kind)), None)


def _check_labels_first(found: Findings, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
    load = _loads(steps)
    early = [kind_of(step) for step in steps[:load] if kind_of(step) in MOVING] if load is not None else []
    if load is not None and early:
        found.error(
            path,
            f'Expected labels to be loaded before the image moves but got {early[0]} before {kind_of(steps[load])}. '
            'The labels would stay where they were: load them first.',
        )


def _check_crop(found: Findings, config: Config, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
    """mmseg pads every batch to the preprocessor's ``size``: what is cropped otherwise is padding for the rest."""
    crops = [step.get('crop_size') for step in steps if kind_of(step) == 'RandomCrop']
    where, settings = next(preprocessors(config), ('', {}))
    size = settings.get('size')
    if not crops or not isinstance(size, list | tuple) or not isinstance(crops[-1], list | tuple):
        return
    if tuple(crops[-1]) != tuple(size):
        found.warning(
            f'{where}.size',
            f'Expected the size that {path} crops, {tuple(crops[-1])}, but got {tuple(size)}. Give both the same.',
        )


def _check_chance(found: Findings, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
    chance = [kind_of(step) for step in steps if kind_of(step) in CHANCE and step.get('prob') != 0]
    if chance:
        found.warning(
            path,
            f'Expected a validation that sees each image as it is but got {", ".join(chance)}. The metric changes from '
            'run to run: give it a pipeline of its own.',
        )


def _check_label_images(found: Findings, path: str, steps: Sequence[Mapping[str, Any]]) -> None:
    load = _loads(steps)
    if load is None:
        found.error(
            path,
            'Expected the label images, which IoUMetric compares with, but the pipeline loads none. Add dict(type='
            "'LoadAnnotations') before the last transform.",
        )
        return
    late = [
        kind_of(step) for step in steps[load:] if kind_of(step).endswith('Resize') and step.get('scale_factor') != 1.0
    ]
    if late:
        found.error(
            path,
            f'Expected label images of their own size but got {late[0]} after {kind_of(steps[load])}. Predictions have '
            'the size of the image on disk: load the labels after it.',
        )


def _check_meta(found: Findings, path: str, steps: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> None:
    keys = steps[-1].get('meta_keys') if steps and kind_of(steps[-1]) in PACKERS else None
    if not isinstance(keys, list | tuple):
        return
    needed = ['ori_shape', *(['img_id'] if {'CocoMetric', 'LVISMetric'} & set(metrics) else [])]
    lacking = [key for key in needed if key not in keys]
    if lacking:
        found.error(
            f'{path}.{len(steps) - 1}.meta_keys',
            f'Expected {needed}, which prediction and metric read, but {lacking} are not among {list(keys)}. Add them.',
        )
