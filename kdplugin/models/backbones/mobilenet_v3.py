"""MobileNetV3-Small with torchvision's layers and names.

mmseg's own MobileNetV3 names its layers differently, pads the stem as TensorFlow does and fixes the output
stride at 8, so torchvision's weights neither load into it nor mean the same there.

Shapes: N image, H height, W width, C channel, S stride of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small

from kdplugin.errors import ConfigError
from kdplugin.registry import MODELS

# Indices in `features`, and the stride that torchvision gives them.
_STRIDED_STAGES = ((range(4, 9), 16), (range(9, 12), 32))


@MODELS.register_module()
class MobileNetV3Small(BaseModule):
    """The feature extractor of torchvision's ``mobilenet_v3_small``, tensor names included.

    Source: Howard et al., Searching for MobileNetV3 (ICCV 2019), as built by torchvision.

    ===== ===================== ======== ===========================
    level index in ``features`` channels stride
    ===== ===================== ======== ===========================
    low   1                     16       4
    mid   3                     24       8
    high  8                     48       min(16, ``output_stride``)
    top   12                    576      ``output_stride``
    ===== ===================== ======== ===========================

    A stage whose stride is taken away is dilated from its first block on, as torchvision does with
    ``dilated=True``. A torchvision checkpoint loads through ``init_cfg=dict(type='Pretrained', ...)``, which
    leaves over only ``classifier.*``.

    Args:
        output_stride: Stride of the last level: 8, 16 or 32 (torchvision's own).
        out_indices: Indices in ``features`` whose outputs are returned, ascending. Layers behind the last one
            are not built.
        bn_momentum: BatchNorm momentum. torchvision's is 0.01; a run of a few hundred steps from random
            weights needs 0.1, or the running statistics lag behind the weights.
        init_cfg: mmengine's initialisation config.

    Raises:
        ConfigError: If ``output_stride`` is another number, or ``out_indices`` is not ascending within 0..12.

    Example:
        >>> import torch
        >>> backbone = MobileNetV3Small(output_stride=16)
        >>> [tuple(level.shape) for level in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 16, 16, 24), (1, 24, 8, 12), (1, 576, 4, 6)]
    """

    def __init__(
        self,
        output_stride: int = 32,
        out_indices: Sequence[int] = (1, 3, 12),
        bn_momentum: float = 0.01,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if output_stride not in (8, 16, 32):
            raise ConfigError(f'Expected output_stride 8, 16 or 32 but got {output_stride}. Choose one of them.')
        norm_layer = partial(nn.BatchNorm2d, eps=1e-3, momentum=bn_momentum)
        features = mobilenet_v3_small(norm_layer=norm_layer).features
        indices = tuple(out_indices)
        if not indices or list(indices) != sorted(set(indices) & set(range(len(features)))):
            raise ConfigError(
                f'Expected out_indices ascending within 0..{len(features) - 1} but got {indices}. '
                'Use for example (1, 3, 12).'
            )
        _remove_strides(features, output_stride)
        self.output_stride = output_stride
        self.out_indices = indices
        self.features = features[: indices[-1] + 1]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen levels, shallow first.

        Args:
            images: [N, 3, H, W].

        Returns:
            One [N, C, H/S, W/S] per entry of ``out_indices``.
        """
        levels = []
        x = images
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.out_indices:
                levels.append(x)
        return tuple(levels)


def _remove_strides(features: nn.Sequential, output_stride: int) -> None:
    """Replace the strides beyond ``output_stride`` by dilation, in place."""
    for indices, stride in _STRIDED_STAGES:
        dilation = stride // output_stride
        if dilation < 2:
            continue
        for index in indices:
            for conv in features[index].modules():
                if isinstance(conv, nn.Conv2d) and conv.groups > 1:
                    conv.stride = (1, 1)
                    conv.dilation = (dilation, dilation)
                    conv.padding = (conv.kernel_size[0] // 2 * dilation,) * 2
