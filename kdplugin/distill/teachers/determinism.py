"""Does a training pipeline give the same image each time, and what does it do?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset
from torch import nn

WRAPPERS = {
    'mmengine.RepeatDataset', 'mmengine.ClassBalancedDataset', 'mmengine.ConcatDataset', 'mmdet.ConcatDataset',
}  # fmt: skip
TRANSFORMS = {
    'mmcv': (
        'CenterCrop', 'ImageToTensor', 'LoadAnnotations', 'LoadImageFromFile', 'Normalize', 'Pad', 'Resize', 'ToTensor',
    ),
    'mmdet': (
        'FilterAnnotations', 'FixScaleResize', 'FixShapeResize', 'ImageToTensor', 'LoadAnnotations',
        'LoadEmptyAnnotations', 'LoadImageFromNDArray', 'LoadMultiChannelImageFromFiles', 'LoadPanopticAnnotations',
        'LoadProposals', 'PackDetInputs', 'Pad', 'Resize', 'ResizeShortestEdge', 'SegRescale', 'ToTensor', 'Transpose',
    ),
    'mmseg': (
        'AdjustGamma', 'CLAHE', 'GenerateEdge', 'LoadAnnotations', 'LoadImageFromNDArray',
        'LoadMultipleRSImageFromFile', 'LoadSingleRSImageFromFile', 'PackSegInputs', 'Rerange', 'Resize',
        'ResizeShortestEdge', 'ResizeToMultiple', 'RGB2Gray', 'SegRescale',
    ),
}  # fmt: skip
DETERMINISTIC = {f'{package}.{name}' for package, names in TRANSFORMS.items() for name in names}
"""Transforms of which the code was read: the same input gives the same output. All others count as random."""
FLIPS = {f'{package}.RandomFlip' for package in TRANSFORMS}
PADS = {'mmdet.BatchFixedSizePad'}


def kind_of(thing: Any) -> str:
    """Return for example 'mmdet.Resize': the package that defines a class, and its name."""
    return f'{type(thing).__module__.split(".")[0]}.{type(thing).__name__}'


def random_parts(dataset: Any, preprocessor: nn.Module | None) -> list[str]:
    """Return, by name, what may give another image for the same sample; what is not known is named too.

    Args:
        dataset: of a training, wrapped or not.
        preprocessor: the ``data_preprocessor`` of the model.
    """
    found = {name: None for leaf in _leaves(dataset) for name in _of_leaf(leaf)}
    augments = getattr(preprocessor, 'batch_augments', None)
    for augment in augments if isinstance(augments, nn.ModuleList) else [augments]:
        if augment is not None and kind_of(augment) not in PADS:
            found[f'{kind_of(augment)} of the data_preprocessor'] = None
    return list(found)


def _leaves(dataset: Any) -> Iterator[Any]:
    """Yield what is inside known wrappers."""
    if kind_of(dataset) not in WRAPPERS:
        yield dataset
        return
    for inner in getattr(dataset, 'datasets', None) or [dataset.dataset]:
        yield from _leaves(inner)


def _of_leaf(dataset: Any) -> Iterator[str]:
    plain = isinstance(dataset, BaseDataset) and all(
        getattr(type(dataset), name) is getattr(BaseDataset, name) for name in ('__getitem__', 'prepare_data')
    )
    if not plain:
        yield kind_of(dataset)
        return
    for transform in _transforms(dataset.pipeline):
        kind = kind_of(transform)
        if kind in FLIPS:
            always = transform.prob == 1 and isinstance(transform.direction, str)
            if transform.prob != 0 and not always:
                yield f'{kind}(prob={transform.prob})'
        elif kind not in DETERMINISTIC:
            yield kind


def _transforms(pipeline: Any) -> Iterator[Any]:
    for transform in getattr(pipeline, 'transforms', pipeline):
        if type(transform).__name__ == 'Compose':
            yield from _transforms(transform)
        else:
            yield transform


def pipeline_text(dataset: Any) -> str:
    """Return every transform with its settings as JSON, equal for equal pipelines in any process."""
    return json.dumps([[_settings(t) for t in _transforms(leaf.pipeline)] for leaf in _leaves(dataset)])


def _settings(transform: Any) -> list[Any]:
    values = {name: _plain(value) for name, value in sorted(vars(transform).items())}
    return [kind_of(transform), values]


def _plain(value: Any) -> Any:
    """Reduce settings to JSON; an object stands for its class: what it was made from are settings too."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, 'tolist'):
        return value.tolist()
    return kind_of(value)
