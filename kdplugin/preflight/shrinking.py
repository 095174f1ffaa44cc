"""A training batch at a fraction of its size: one step on it asks the same questions in a fraction of the time.

N image, C colour, H W pixel.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

MOST = 160_000
"""Pixels of an image that is left as it is; COCO's usual 1333 x 800 has seven times as many."""
MULTIPLE = 32
"""Sides become multiples of this, as pyramids like them."""
INSTANCES = ('gt_instances', 'ignored_instances', 'proposals')
MAPS = ('gt_sem_seg',)
SCALED = ('bboxes', 'masks')
KEPT = ('labels', 'scores')
PADDINGS = ('padding_size', 'img_padding_size')
"""Of mmseg: left, right, top, bottom."""
SIZES = ('img_shape', 'pad_shape', 'batch_input_shape')


def shrunk(data: Any, most: int = MOST, truth: bool = True) -> Any:
    """Return a batch whose images have about ``most`` pixels, or fewer, in the same shape; the batch itself if so.

    Boxes, masks and label maps of mmdet and mmseg samples shrink along. A batch that holds what nobody here can scale
    is returned as it is.

    Args:
        data: ``dict(inputs=Tensor (N, C, H, W), data_samples=[...])``, as a data preprocessor returns it; unchanged.
        most: pixels.
        truth: labels belong to the images as they are, and not, as in validation, to those of the files.
    """
    images = data.get('inputs') if isinstance(data, Mapping) else None
    samples = data.get('data_samples') if isinstance(data, Mapping) else None
    if not isinstance(images, Tensor) or images.dim() != 4 or not samples or not all(map(_is_known, samples)):
        return data
    height, width = images.shape[-2:]
    if height * width <= most:
        return data
    share = math.sqrt(most / (height * width))
    size = tuple(MULTIPLE * math.ceil(side * share / MULTIPLE) for side in (height, width))
    by = size[0] / height, size[1] / width
    inputs = F.interpolate(images, size=size, mode='bilinear', align_corners=False, antialias=True)
    return {**data, 'inputs': inputs, 'data_samples': [_scaled(sample, by, truth) for sample in samples]}


def _is_known(sample: Any) -> bool:
    fields = set(sample.all_keys()) - set(sample.metainfo_keys()) if hasattr(sample, 'all_keys') else {''}
    instances = [set(sample.get(name).keys()) for name in fields if name in INSTANCES]
    return fields <= {*INSTANCES, *MAPS} and all(keys <= {*SCALED, *KEPT} for keys in instances)


def _scaled(sample: Any, by: tuple[float, float], truth: bool) -> Any:
    """Return a sample whose sizes, and ground truth if asked for, are scaled by (vertical, horizontal) factors."""
    sample = copy.deepcopy(sample)
    meta: dict[str, Any] = {key: _times(sample.metainfo[key], by) for key in SIZES if key in sample.metainfo}
    meta |= {
        key: [round(side * by[number < 2]) for number, side in enumerate(sample.metainfo[key])]
        for key in PADDINGS
        if key in sample.metainfo
    }
    if 'scale_factor' in sample.metainfo:
        horizontal, vertical = sample.metainfo['scale_factor'][:2]
        meta['scale_factor'] = (horizontal * by[1], vertical * by[0])
    sample.set_metainfo(meta)
    for name in INSTANCES if truth else ():
        if name in sample:
            _scale_instances(sample.get(name), by)
    for name in MAPS if truth else ():
        if name in sample:
            _scale_map(sample.get(name), by)
    return sample


def _times(size: Any, by: tuple[float, float]) -> tuple[int, ...]:
    return round(size[0] * by[0]), round(size[1] * by[1]), *size[2:]


def _scale_instances(instances: Any, by: tuple[float, float]) -> None:
    boxes = instances.get('bboxes')
    if isinstance(boxes, Tensor):
        instances.bboxes = boxes * boxes.new_tensor((by[1], by[0], by[1], by[0]))
    elif boxes is not None:
        boxes.rescale_((by[1], by[0]))
    masks = instances.get('masks')
    if masks is not None:
        instances.masks = masks.resize(_times((masks.height, masks.width), by))


def _scale_map(labels: Any, by: tuple[float, float]) -> None:
    maps = {key: labels.pop(key) for key in list(labels.keys())}  # all at once: PixelData wants them of one size
    for key, value in maps.items():
        size = _times(tuple(value.shape[-2:]), by)
        labels.set_field(F.interpolate(value[None].float(), size=size, mode='nearest')[0].to(value.dtype), key)
