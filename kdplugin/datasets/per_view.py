"""A pipeline for each view of a rig.

V view, H W pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.transforms import BaseTransform, Compose
from mmdet.structures import DetDataSample

from kdplugin.errors import DataError
from kdplugin.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PerView(BaseTransform):
    """Run one pipeline, which ends in ``PackDetInputs``, on every view of a rig, and put the views together.

    What comes out is ``inputs`` (V, 3, H, W) and one data sample, whose ``views`` are those of the images, for
    ``kdplugin.RigPreprocessor``.

    Args:
        transforms: of a view, mmdet's and mmcv's types as in any pipeline.
        shared: keys of the rig that each view gets too, such as ``('input_ids', 'vlm_labels')``; ``meta_keys`` of
            PackDetInputs keep them.

    Raises:
        DataError: there are no views, a view is dropped, or they come out in several sizes.
    """

    def __init__(self, transforms: Sequence[Any], shared: Sequence[str] = ()) -> None:
        self.transforms = Compose(list(transforms))
        self.shared = tuple(shared)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        views = results.get('views')
        if not views:
            raise DataError("Expected views of a rig but got none. Read Bench2DriveDataset with layout='rig'.")
        common = {key: results[key] for key in self.shared}
        packed = [self.transforms({**view, **common, 'sample_idx': results.get('sample_idx', 0)}) for view in views]
        if any(one is None for one in packed):
            raise DataError('Expected every view of a rig to stay but its pipeline dropped one. Drop whole rigs.')
        sizes = {tuple(one['inputs'].shape) for one in packed}
        if len(sizes) > 1:
            raise DataError(
                f'Expected all views of a rig in one size but got {sorted(sizes)}. Use resizing without randomness.'
            )
        rig = DetDataSample()
        rig.set_field([one['data_samples'] for one in packed], 'views', field_type='data')
        return dict(inputs=torch.stack([one['inputs'] for one in packed]), data_samples=rig)
