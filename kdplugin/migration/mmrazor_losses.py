"""MMRazor 1.x losses as losses of kdplugin, and the factor between their values.

N image, C channel or class, H W position, on the grid of the tapped tensor while training.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.nn._reduction import legacy_get_string

from kdplugin.errors import ConfigError
from kdplugin.migration.notes import Kind
from kdplugin.module_paths import did_you_mean

Shape = tuple[int, ...]
"""Of the student's tensor in one training step: (N, C, H, W) or (N, C)."""


class NoCounterpartError(ConfigError):
    """A part of a foreign config that cannot be said here."""


@dataclass(frozen=True)
class Converted:
    """A loss of kdplugin that, times ``factor``, is the foreign one.

    Args:
        settings: keys of a pair: ``loss``, or a ``type`` of its own and what belongs to it.
        factor: the foreign loss, its own weight included, over ours.
        why: how the factor comes about; empty where both say the same.
        adapter: what there is to tell of a convolution before the loss.
    """

    settings: dict[str, Any]
    factor: float
    why: str = ''
    adapter: tuple[Kind, str] | None = None


def convert_loss(settings: Mapping[str, Any], shape: Shape) -> Converted:
    """Return the counterpart of an MMRazor loss.

    Args:
        settings: ``dict(type='PKDLoss', loss_weight=6)``.
        shape: of the student's tensor in one training step, on one device.

    Raises:
        NoCounterpartError: there is none, or not with these settings.
        ConfigError: an argument that the MMRazor loss does not take.

    Example:
        >>> convert_loss(dict(type='ChannelWiseDivergence', tau=4, loss_weight=3), (2, 19, 64, 128)).settings
        {'loss': {'type': 'kdplugin.CWDLoss', 'temperature': 4.0}}
    """
    kind = known_loss(settings)
    convert = LOSSES[kind]
    given = {key: value for key, value in settings.items() if key not in ('type', '_scope_')}
    known = [name for name in inspect.signature(convert).parameters if name != 'shape']
    for key in given:
        if key not in known:
            raise ConfigError(f'Expected settings {known} of {kind} but got {key!r}.{did_you_mean(key, known)}')
    return convert(shape, **given)


def known_loss(settings: Mapping[str, Any]) -> str:
    """Return the name of a loss without MMRazor's scope; raises NoCounterpartError for one that is not here."""
    kind = str(settings.get('type')).removeprefix('mmrazor.')
    if kind not in LOSSES:
        raise NoCounterpartError(
            f'Expected a loss that kdplugin has but got {kind}.{did_you_mean(kind, LOSSES)} '
            f'{INSTEAD.get(kind, "Choose another loss.")}'
        )
    return kind


INSTEAD = {
    'FBKDLoss': 'FGD compares what is active on the same pyramids, and where objects are: see configs/detection.',
    'CRDLoss': 'It needs a memory of the data set.',
}


def _tapped(loss: dict[str, Any], factor: float, why: str = '') -> Converted:
    return Converted(dict(loss=loss), factor, why)


def _channel_wise(shape: Shape, tau: float = 1.0, loss_weight: float = 1.0) -> Converted:
    return _tapped(dict(type='kdplugin.CWDLoss', temperature=float(tau)), loss_weight)


def _pearson(shape: Shape, loss_weight: float = 1.0, resize_stu: bool = True) -> Converted:
    if not resize_stu:
        raise NoCounterpartError(
            'Expected PKDLoss to resize the student but got resize_stu=False. Maps of the student are brought to the '
            "teacher's size here: set resize_stu=True, or tap layers of equal size."
        )
    return _tapped(dict(type='kdplugin.PKDLoss'), loss_weight)


def _divergence(
    shape: Shape,
    tau: float = 1.0,
    reduction: str = 'batchmean',
    loss_weight: float = 1.0,
    teacher_detach: bool = True,
) -> Converted:
    _demand_detached(teacher_detach)
    loss = dict(type='kdplugin.KLDivergenceLoss', temperature=float(tau))
    images, classes, *grid = shape
    positions = math.prod(grid)
    if reduction == 'mean':
        why = f'mean over {classes} classes too, here their sum: 1 / {classes}'
        return _tapped(loss, loss_weight / classes, why)
    if reduction == 'batchmean':
        why = f'sum over {positions} positions, here their mean: times {positions}' if positions > 1 else ''
        return _tapped(loss, loss_weight * positions, why)
    if reduction == 'sum':
        why = f'sum over {images} images and {positions} positions, here their mean: times {images * positions}'
        return _tapped(loss, loss_weight * images * positions, why)
    raise NoCounterpartError(
        f"Expected a KLDivergence that gives one number but got reduction={reduction!r}. Set 'batchmean' or 'mean'."
    )


def _relations(
    shape: Shape,
    inter_loss_weight: float = 1.0,
    intra_loss_weight: float = 1.0,
    tau: float = 1.0,
    loss_weight: float = 1.0,
    teacher_detach: bool = True,
) -> Converted:
    _demand_detached(teacher_detach)
    if len(shape) > 2:
        raise NoCounterpartError(
            'Expected DISTLoss on logits (N, C) but got a map. There MMRazor relates a class over the images of each '
            'pixel alone; kdplugin.DISTLoss relates it over all pixels, as the paper does. Write the pair by hand.'
        )
    weights = dict(inter_weight=float(inter_loss_weight), intra_weight=float(intra_loss_weight))
    return _tapped(dict(type='kdplugin.DISTLoss', temperature=float(tau), **weights), loss_weight)


def _absolute(
    shape: Shape,
    loss_weight: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = 'mean',
) -> Converted:
    if size_average is not None or reduce is not None:
        reduction = legacy_get_string(size_average, reduce, emit_warning=False)
    loss = dict(type='kdplugin.L1Loss')
    if reduction == 'mean':
        return _tapped(loss, loss_weight)
    if reduction == 'sum':
        count = math.prod(shape)
        return _tapped(loss, loss_weight * count, f'sum over {count} values, here their mean: times {count}')
    raise NoCounterpartError(
        f"Expected an L1Loss that gives one number but got reduction={reduction!r}. Set 'mean' or 'sum'."
    )


def _squared(
    shape: Shape,
    loss_weight: float = 1.0,
    normalize: bool = True,
    mult: float = 1.0,
    div_element: bool = False,
    dist: bool = False,
) -> Converted:
    if normalize or dist:
        setting = 'normalize=True' if normalize else 'dist=True'
        raise NoCounterpartError(
            f'Expected an L2Loss on features as they are but got {setting}. kdplugin.CosineLoss compares directions '
            'position by position, kdplugin.L2Loss means squares: choose one and its weight.'
        )
    loss = dict(type='kdplugin.L2Loss')
    if div_element:
        return _tapped(loss, loss_weight)
    count = math.prod(shape[1:])
    return _tapped(loss, loss_weight * count, f'sum over {count} values of an image, here their mean: times {count}')


def _attention(shape: Shape, loss_weight: float = 1.0) -> Converted:
    return _tapped(dict(type='kdplugin.AttentionTransferLoss'), loss_weight)


def _distances(shape: Shape, loss_weight: float = 25.0, with_l2_norm: bool = True) -> Converted:
    images = _points(shape, with_l2_norm)
    loss = dict(type='kdplugin.RKDLoss', distance_weight=1.0, angle_weight=0.0)
    why = f'mean over {images}^2 pairs, those of an image with itself included: times {images - 1} / {images}'
    return _tapped(loss, loss_weight * (images - 1) / images, why)


def _angles(shape: Shape, loss_weight: float = 50.0, with_l2_norm: bool = True) -> Converted:
    images = _points(shape, with_l2_norm)
    loss = dict(type='kdplugin.RKDLoss', distance_weight=0.0, angle_weight=1.0)
    share = (images - 1) * (images - 2) / images**2
    return _tapped(loss, loss_weight * share, f'mean over {images}^3 triples, here over distinct ones: times {share:g}')


def _points(shape: Shape, with_l2_norm: bool) -> int:
    size = shape
    if with_l2_norm or len(size) > 2:
        got = 'with_l2_norm=True' if with_l2_norm else f'a map {size}'
        raise NoCounterpartError(
            f'Expected relations of vectors (N, C) as they are but got {got}. kdplugin.RKDLoss takes the mean over '
            'positions and does not normalise: choose its weights by hand.'
        )
    return size[0]


def _generation(shape: Shape, alpha_mgd: float = 2e-5) -> Converted:
    raise NoCounterpartError('Expected MGDLoss behind an MGDConnector but got it alone. Write the pair by hand.')


def _demand_detached(teacher_detach: bool) -> None:
    if not teacher_detach:
        raise NoCounterpartError(
            'Expected a loss without gradient to the teacher but got teacher_detach=False. The teacher is never '
            'trained here.'
        )


LOSSES: dict[str, Callable[..., Converted]] = {
    'ChannelWiseDivergence': _channel_wise,
    'PKDLoss': _pearson,
    'KLDivergence': _divergence,
    'DISTLoss': _relations,
    'L1Loss': _absolute,
    'L2Loss': _squared,
    'ATLoss': _attention,
    'DistanceWiseRKD': _distances,
    'AngleWiseRKD': _angles,
    'MGDLoss': _generation,
}
"""MMRazor's name of a loss -> what makes ours of it."""
