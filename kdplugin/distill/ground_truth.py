"""What a batch says beside its images.

N image, H W pixel, M object of an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the images among the arguments of a model's ``forward``."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def samples_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the data samples among the arguments of a model's ``forward``, None without any."""
    return kwargs.get('data_samples', args[1] if len(args) > 1 else None)


def truth_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return samples, labels, boxes and the size of the padded batch, as ``StepContext`` calls them."""
    samples = samples_of(args, kwargs)
    height, width = first_tensor(args, kwargs).shape[-2:]
    return dict(
        data_samples=samples, labels=segmentation_labels(samples), boxes=object_boxes(samples),
        image_size=(height, width),
    )  # fmt: skip


def segmentation_labels(samples: Any) -> Tensor | None:
    """Return the labels (N, H, W) of mmseg data samples, or of mmdet's that have a segmentation, else None."""
    if not samples or not all('gt_sem_seg' in sample for sample in samples):
        return None
    maps = [sample.gt_sem_seg for sample in samples]
    return torch.cat([labels.data if 'data' in labels else labels.sem_seg for labels in maps])


def object_boxes(samples: Any) -> list[Tensor] | None:
    """Return the boxes (M, 4) of each image of mmdet data samples, or None if they have none."""
    if not samples or not all('gt_instances' in sample and 'bboxes' in sample.gt_instances for sample in samples):
        return None
    boxes = [sample.gt_instances.bboxes for sample in samples]
    return [value if isinstance(value, Tensor) else value.tensor for value in boxes]


def is_detector(model: nn.Module) -> bool:
    """Tell whether a model is mmdet's, so that its data samples carry boxes."""
    return 'mmdet' in packages_of(model)


def is_segmentor(model: nn.Module) -> bool:
    """Tell whether a model is mmseg's, whose batches have a label for each pixel."""
    return 'mmseg' in packages_of(model)


def packages_of(model: nn.Module) -> set[str]:
    """Return the packages that a model's class and its bases come from."""
    return {base.__module__.split('.')[0] for base in type(model).__mro__}
