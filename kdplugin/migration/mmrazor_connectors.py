"""MMRazor's connectors: what a student's tensor goes through before the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kdplugin.migration.mmrazor_losses import Converted, NoCounterpartError, Shape, convert_loss
from kdplugin.migration.notes import Kind

POINTWISE = dict(kernel_size=1, stride=1, padding=0, dilation=1, groups=1, conv_cfg=None, with_spectral_norm=False)
"""Settings of a ConvModuleConnector that is a 1x1 convolution, which they are by default."""


def through_connector(loss: Mapping[str, Any], connector: Any, shape: Shape) -> Converted:
    """Convert a loss whose student tensor goes through a connector first.

    Args:
        loss: config of the MMRazor loss.
        connector: config of the connector, or a list of configs.
        shape: of the student's tensor before the connector.

    Raises:
        NoCounterpartError: the connector is no 1x1 convolution and not MGD's, or the loss has no counterpart.
    """
    kind = str(connector.get('type')).removeprefix('mmrazor.') if isinstance(connector, Mapping) else 'several modules'
    if kind == 'MGDConnector':
        return _generated(loss, connector, shape)
    if kind != 'ConvModuleConnector' or not is_pointwise(connector):
        raise NoCounterpartError(
            f'Expected a student tensor that goes through a 1x1 convolution at most but got {kind}. Adapters are 1x1 '
            'convolutions that the engine sizes.'
        )
    converted = convert_loss(loss, (shape[0], connector['out_channel'], *shape[2:]))
    return Converted(converted.settings, converted.factor, converted.why, adapter_note(connector))


def _generated(loss: Mapping[str, Any], connector: Mapping[str, Any], shape: Shape) -> Converted:
    """Convert an MGDLoss behind its MGDConnector."""
    if str(loss.get('type')).removeprefix('mmrazor.') != 'MGDLoss' or connector.get('mask_on_channel', False):
        raise NoCounterpartError(
            f'Expected an MGDLoss that hides positions behind an MGDConnector but got {loss.get("type")}, '
            f'mask_on_channel={connector.get("mask_on_channel", False)}. kdplugin.MGD hides positions.'
        )
    settings = dict(type='kdplugin.MGD', mask_ratio=float(connector.get('lambda_mgd', 0.65)))
    count = connector['teacher_channels'] * math.prod(shape[2:])
    why = f'sum over {count} values of an image, here their mean without padding: times {count}'
    return Converted(settings, loss.get('alpha_mgd', 2e-5) * count, why)


def is_pointwise(connector: Mapping[str, Any]) -> bool:
    """Tell whether a ConvModuleConnector is a 1x1 convolution, apart from its norm and activation."""
    return all(connector.get(key, value) in (value, (value, value), [value, value]) for key, value in POINTWISE.items())


def adapter_note(connector: Mapping[str, Any]) -> tuple[Kind, str]:
    """Return what becomes of a pointwise ConvModuleConnector."""
    behind = [
        part
        for part, setting in (
            ('norm', connector.get('norm_cfg')),
            ('activation', connector.get('act_cfg', dict(type='ReLU'))),
        )
        if setting
    ]
    old = ' and '.join(['its connector was a 1x1 convolution', *behind])
    if connector['in_channel'] == connector['out_channel']:
        return 'changed', f'{old}; there is none here, because both sides have as many channels.'
    if behind:
        return 'changed', f'{old}; the adapter here is a 1x1 convolution with bias alone, sized by the engine.'
    return 'kept', f'{old}; so is the adapter here, sized by the engine.'
