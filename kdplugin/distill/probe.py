"""Run a model once on a synthetic batch to learn what its taps put out."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from kdplugin.distill.first_step import first_step
from kdplugin.distill.ground_truth import is_detector
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import catch
from kdplugin.errors import PathError, TapError

PROBE_SIZE = (256, 256)
LARGE_SIZE = (512, 512)
"""Tried last: deformable convolutions at the end of a pyramid refuse the 2x2 map that the small size leaves them."""
PROPOSALS = 16
MODES = ('tensor', 'loss', 'predict')
"""The last is for heads that run neither in 'tensor' nor, in eval mode, in 'loss', such as DINO's."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found.

    Args:
        mode: the mode of ``forward`` in which every tap fires: only 'loss' needs ground truth.
        shapes: by tap, the shape of each tensor for one image.
        overwritten: taps whose output a later in-place operation changes.
        size: (H, W) of the image.
    """

    mode: str
    shapes: dict[str, list[tuple[int, ...]]]
    overwritten: frozenset[str]
    size: tuple[int, int] | None = None


def synthetic_batch(model: nn.Module, size: tuple[int, int], batch: int = 1) -> tuple[torch.Tensor, list[Any]]:
    """Return random images (B, 3, H, W) and data samples with ground truth that suits an mmdet or mmseg model."""
    inputs = torch.randn(batch, 3, *size)
    device = next(model.parameters()).device
    meta: dict[str, Any] = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    make = _detection_sample if is_detector(model) else _segmentation_sample
    samples = [make({**meta, 'scale_factor': (1.0, 1.0), 'img_id': n}, device) for n in range(batch)]
    return inputs.to(device), samples


def _segmentation_sample(meta: dict[str, Any], device: torch.device) -> Any:
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *meta['img_shape'], dtype=torch.long))
    return sample.to(device)


def _detection_sample(meta: dict[str, Any], device: torch.device) -> Any:
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    height, width = meta['img_shape']
    box = torch.tensor([[0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]])
    masks = BitmapMasks(np.ones((1, height, width), dtype=np.uint8), height, width)
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(bboxes=box, labels=torch.zeros(1, dtype=torch.long), masks=masks)
    sample.ignored_instances = InstanceData(bboxes=box[:0], labels=torch.zeros(0, dtype=torch.long))
    sample.proposals = InstanceData(bboxes=box, scores=torch.ones(1))  # for detectors without a part that proposes
    sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.long))  # for panoptic heads
    return sample.to(device)


@contextlib.contextmanager
def as_evaluated(model: nn.Module) -> Iterator[None]:
    """Put every module in eval mode for the block, then each back to its own mode."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def few_proposals(model: Any, paths: Sequence[str]) -> Iterator[None]:
    """Let a two-stage detector of mmdet propose few boxes in the block, unless a tap is in what works on them.

    A cascade's mask heads take most of a run on the CPU, and the taps before them put out the same.
    """
    head: Any = getattr(model, 'rpn_head', None)
    settings = getattr(head, 'test_cfg', None)
    beyond = any(path.partition('.')[0] in ('', 'roi_head') for path in paths)
    if beyond or not isinstance(settings, dict) or settings.get('max_per_img', 0) <= PROPOSALS:
        yield
        return
    head.test_cfg = copy.deepcopy(settings)
    head.test_cfg['max_per_img'] = PROPOSALS
    try:
        yield
    finally:
        head.test_cfg = settings


def probe_sizes(model: nn.Module) -> list[tuple[int, int]]:
    """Return the sizes (H, W) to try: a small one, then the one that the model's preprocessor makes (mmseg's crop).

    Models with position tables of one size (BEiT) run on no other.
    """
    size = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    return [PROBE_SIZE, (size[0], size[1])] if size is not None and tuple(size) != PROBE_SIZE else [PROBE_SIZE]


_KEPT: ContextVar[dict[Any, ProbeResult] | None] = ContextVar('probes', default=None)


@contextlib.contextmanager
def probed_once() -> Iterator[None]:
    """Let models be probed once for the same taps and sizes in the block, in which only their weights may change."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def probe(
    model: nn.Module, paths: Sequence[str], owner: str, sizes: Sequence[tuple[int, int]] = (PROBE_SIZE,)
) -> ProbeResult:
    """Find the shapes that taps put out, without touching modes, buffers or random number generators.

    A model that cannot run with the weights of its constructor (Sparse R-CNN's proposals have negative sizes) is
    probed as a copy whose weights are initialised.

    Raises:
        PathError: a path names no module.
        TapError: no way of running the model makes every tap fire.
    """
    kept, key = _KEPT.get(), (id(model), frozenset(paths), tuple(sizes))
    if kept is not None and key in kept:
        return kept[key]
    with preserved_rng(), first_step():
        found = _search(model, paths, owner, sizes)
        if not isinstance(found, ProbeResult):
            again = None if is_initialised(model) else _search(initialised_copy(model), paths, owner, sizes)
            found = again if isinstance(again, ProbeResult) else found
    if isinstance(found, ProbeResult):
        if kept is not None:
            kept[key] = found
        return found
    tried = '; '.join(f'{what} ({", ".join(places)})' for what, places in found.items())
    raise TapError(
        f'Expected the {owner} to run once on a synthetic image with every tap firing but got '
        f'{tried}. Tap modules that run during training.'
    )


def is_initialised(model: nn.Module) -> bool:
    """Tell whether ``init_weights`` was called, or does not exist."""
    return bool(getattr(model, 'is_init', True))


def initialised_copy(model: nn.Module) -> nn.Module:
    """Return a copy with initial weights as a training has them, but for files of weights, which are not read."""
    twin: Any = copy.deepcopy(model)
    for module in twin.modules():
        init_cfg = getattr(module, 'init_cfg', None)
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            module.init_cfg = None
        for name in ('pretrained', 'checkpoint'):  # of TimmBackbone
            if getattr(module, name, None):
                setattr(module, name, None)
    twin.init_weights()
    return twin


def _search(
    model: nn.Module, paths: Sequence[str], owner: str, sizes: Sequence[tuple[int, int]]
) -> ProbeResult | dict[str, list[str]]:
    """Return what the first way of running that makes every tap fire shows, or the places of each failure."""
    failures: dict[str, list[str]] = {}
    with torch.no_grad(), as_evaluated(model), few_proposals(model, paths):
        for size, mode in itertools.product([*sizes, LARGE_SIZE], MODES):
            inputs, samples = synthetic_batch(model, size)
            try:
                found = _look(model, paths, owner, inputs, samples, mode)
            except PathError:
                raise
            except Exception as error:
                what = f'{type(error).__name__}: {error}'.rstrip('.')
                failures.setdefault(what, []).append(f'on {size[0]}x{size[1]} in mode {mode!r}')
                continue
            return found if mode == 'loss' else _as_in_training(model, paths, owner, found, inputs, samples)
    return failures


def _look(
    model: nn.Module,
    paths: Sequence[str],
    owner: str,
    inputs: torch.Tensor,
    samples: list[Any],
    mode: str,
) -> ProbeResult:
    with catch(model, paths, owner) as caught:
        model(inputs, samples, mode=mode)
        overwritten = caught.overwritten()
    shapes = {path: [tuple(tensor.shape) for tensor in tensors] for path, tensors in caught.tensors.items()}
    return ProbeResult(mode, shapes, overwritten, (inputs.shape[-2], inputs.shape[-1]))


def _as_in_training(
    model: nn.Module, paths: Sequence[str], owner: str, found: ProbeResult, inputs: torch.Tensor, samples: list[Any]
) -> ProbeResult:
    """Return what mode 'loss' shows instead, where taps run more or less often there (CondInst's run twice outside)."""
    try:
        trained = _look(model, paths, owner, inputs, samples, 'loss')
    except Exception:  # some run only in the mode that was found
        return found
    often = [[len(one.shapes[path]) for path in paths] for one in (found, trained)]
    return found if often[0] == often[1] else trained
