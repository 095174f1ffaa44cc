"""Preprocessing of camera rigs: each view is an image of its own."""

from __future__ import annotations

from typing import Any

from mmdet.models.data_preprocessors import DetDataPreprocessor
from torch import Tensor

from kdplugin.errors import DataError
from kdplugin.models.detectors.rigs import views_of
from kdplugin.registry import MODELS


@MODELS.register_module()
class RigPreprocessor(DetDataPreprocessor):
    """mmdet's ``DetDataPreprocessor`` on rigs of views: V images of a sample become V images of the batch.

    A sample of a rig comes from ``kdplugin.PerView``: ``inputs`` (V, 3, H, W) and a data sample with ``views``. Single
    images pass as they do with mmdet.

    Raises:
        DataError: a rig has another number of views than of samples.
    """

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        images, samples = list(data['inputs']), data.get('data_samples')
        if all(isinstance(image, Tensor) and image.dim() == 3 for image in images):
            return super().forward(data, training)
        flat = None if samples is None else [view for sample in samples for view in views_of(sample)]
        views = [view for image in images for view in image]
        if flat is not None and len(flat) != len(views):
            raise DataError(f'Expected a data sample for each of {len(views)} views but got {len(flat)}. Add them.')
        result: dict[str, Any] = super().forward({**data, 'inputs': views, 'data_samples': flat}, training)
        return result
