"""What a model costs to run: parameters, multiply-adds and latency, for the network alone.

N image, C channel, H W pixels of the input after preprocessing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kdplugin.distill.model_config import plain_model_config

WARM_UP = 2
MIN_ROUNDS = 10
MAX_ROUNDS = 50
SECONDS = 10.0


def validation_shape(config: Config) -> tuple[int, int] | None:
    """Return the height and width of what the network sees at validation, None where nothing fixes it.

    The ``scale`` (width, height) of the validation pipeline's ``Resize``, rounded up to the preprocessor's
    ``pad_size_divisor``. With ``keep_ratio`` that is a bound, so the preprocessor's ``size`` (the crop that
    mmseg trains on) goes before it; without a ``Resize`` there is only ``size``.
    """
    dataset = (config.get('val_dataloader') or {}).get('dataset') or {}
    pipeline = dataset.get('pipeline') or (dataset.get('dataset') or {}).get('pipeline') or []
    resize: dict[str, Any] = next(
        (step for step in pipeline if str(step.get('type')).endswith('Resize') and step.get('scale')), {}
    )
    preprocessor = plain_model_config(config).get('data_preprocessor') or {}
    size, scale = preprocessor.get('size'), resize.get('scale')
    if scale and not (resize.get('keep_ratio') and size):
        width, height = (scale, scale) if isinstance(scale, int) else scale
        divisor = preprocessor.get('pad_size_divisor') or 1
        return -(-height // divisor) * divisor, -(-width // divisor) * divisor
    return (int(size[0]), int(size[1])) if size else None


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters, shared ones once, buffers not at all."""
    return sum(parameter.numel() for parameter in model.parameters())


def forward(model: nn.Module, images: Tensor) -> Any:
    """Run an mmdet or mmseg network without pre- and postprocessing (``mode='tensor'``).

    Args:
        model: in eval mode.
        images: [N, C, H, W], already normalised.
    """
    shape = tuple(images.shape[2:])
    meta = {'img_shape': shape, 'ori_shape': shape, 'pad_shape': shape, 'batch_input_shape': shape}
    samples = [BaseDataElement(metainfo={**meta, 'scale_factor': (1.0, 1.0)}) for _ in range(len(images))]
    with torch.inference_mode():
        return model(images, samples, mode='tensor')


def count_multiply_adds(model: nn.Module, images: Tensor) -> int:
    """Return the multiply-adds of one forward pass: convolutions, matrix products, attention.

    torch's ``FlopCounterMode`` counts a multiplication and an addition as two; this is half of its number. It
    does not see fused kernels, so attention runs unfused here; compiled operators of mmcv count as nothing.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            forward(model, images)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops() // 2


def measure_latency(models: Mapping[str, nn.Module], images: Tensor) -> dict[str, list[float]]:
    """Time forward passes of several models in turns, so that a slow moment of the machine meets all of them.

    Args:
        models: in eval mode, by name.
        images: [N, C, H, W] on the models' device, the same for all.

    Returns:
        milliseconds of each of at least ten passes for each name; take their median.
    """
    taken: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        for _ in range(WARM_UP):
            forward(model, images)
    start = time.perf_counter()
    for done in range(MAX_ROUNDS):
        if done >= MIN_ROUNDS and time.perf_counter() - start > SECONDS:
            break
        for name, model in models.items():
            begin = time.perf_counter()
            forward(model, images)
            taken[name].append((time.perf_counter() - begin) * 1e3)
    return taken
