"""torchvision's ``fcn_resnet50`` under the names of mmseg's ``EncoderDecoder`` with two ``FCNHead``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torchvision.models.segmentation import fcn_resnet50

from kdplugin.errors import CheckpointError

_RENAMED = {
    'backbone.': 'backbone.',
    'classifier.0.': 'decode_head.convs.0.conv.',
    'classifier.1.': 'decode_head.convs.0.bn.',
    'classifier.4.': 'decode_head.conv_seg.',
    'aux_classifier.0.': 'auxiliary_head.convs.0.conv.',
    'aux_classifier.1.': 'auxiliary_head.convs.0.bn.',
    'aux_classifier.4.': 'auxiliary_head.conv_seg.',
}


def fcn_from_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of torchvision's ``fcn_resnet50`` to those of mmseg's FCN; values stay as they are.

    Source: torchvision ``models/segmentation/fcn.py`` and mmseg ``decode_heads/fcn_head.py``. They compute
    the same when mmseg's backbone is ``ResNet`` with ``contract_dilation=True`` and its heads have
    ``num_convs=1`` and ``concat_input=False`` (``configs/_base_/models/fcn_r50_torchvision.py``).

    Args:
        state_dict: Tensors by torchvision's names, of any class count, with or without ``aux_classifier``.

    Raises:
        CheckpointError: If a name or a shape is not what torchvision's model has.

    Example:
        >>> teacher = fcn_from_torchvision(fcn_resnet50(weights=None, weights_backbone=None).state_dict())
        >>> teacher['decode_head.conv_seg.weight'].shape
        torch.Size([21, 512, 1, 1])
    """
    expected = _expected_shapes(state_dict)
    missing = [name for name in expected if name not in state_dict]
    left_over = [name for name in state_dict if name not in expected]
    if missing or left_over:
        raise CheckpointError(
            f"Expected the {len(expected)} tensors of torchvision's fcn_resnet50 but got {len(state_dict)}: "
            f'{_some(missing)} missing, {_some(left_over)} left over. '
            'Give the state dict of that model, without a prefix.'
        )
    reshaped = [name for name, shape in expected.items() if state_dict[name].shape != shape]
    if reshaped:
        raise CheckpointError(
            f"Expected the shapes of torchvision's fcn_resnet50 but got {_some(reshaped)} of another shape, "
            f'{reshaped[0]} {tuple(state_dict[reshaped[0]].shape)} for {tuple(expected[reshaped[0]])}. '
            'Give an FCN with the ResNet-50 backbone.'
        )
    return {_rename(name): tensor for name, tensor in state_dict.items()}


def _expected_shapes(state_dict: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return torchvision's names and shapes, with the class count and auxiliary head of the given tensors."""
    classifier = state_dict.get('classifier.4.weight')
    with torch.device('meta'):
        model = fcn_resnet50(
            weights=None,
            weights_backbone=None,
            num_classes=21 if classifier is None else len(classifier),
            aux_loss=any(name.startswith('aux_classifier.') for name in state_dict),
        )
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _rename(name: str) -> str:
    prefix = next(prefix for prefix in _RENAMED if name.startswith(prefix))
    return _RENAMED[prefix] + name.removeprefix(prefix)


def _some(names: Iterable[str], limit: int = 3) -> str:
    """Return the count and the first few names."""
    listed = list(names)
    if not listed:
        return 'none'
    return f'{len(listed)} ({", ".join(listed[:limit])}{", ..." if len(listed) > limit else ""})'
