"""A pyramid from one map, for detectors on a plain vision transformer.

Shapes: N image, C channel of the map, D channel of the pyramid, H W of the map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.registry import MODELS

MODELS.register_module(name='LN2d', module=LayerNorm2d)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Levels of several strides, each resampled from the last map alone, then convolved 1x1 and 3x3.

    Source: ViTDet (Li et al., arXiv 2203.16527), section 3 and its code: a scale of 2 is a deconvolution, 4 is two with
    norm and GELU between, 1/2 a max pooling. Deconvolutions halve the channels.

    Args:
        in_channels: C; the last one where a list is given.
        out_channels: D.
        scales: of the levels relative to the map, powers of two; on a map of stride 16 the default is 4, 8, 16, 32.
        num_outs: levels put out; those beyond ``scales`` take every second value of the one before (stride 64 ...).
            None for one for each scale.
        norm_cfg: mm* config of a norm over channels; ViTDet's is LayerNorm, 'kdplugin.LN2d'. None for no norm.
        init_cfg: mmengine's initialisation config.

    Raises:
        ConfigError: a scale is no power of two, or there are fewer outputs than scales.

    Example:
        >>> import torch
        >>> neck = SimpleFeaturePyramid(48, out_channels=8, num_outs=5)
        >>> [tuple(level.shape) for level in neck([torch.rand(1, 48, 4, 6)])]
        [(1, 8, 16, 24), (1, 8, 8, 12), (1, 8, 4, 6), (1, 8, 2, 3), (1, 8, 1, 2)]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int | None = None,
        norm_cfg: dict[str, Any] | None = dict(type='kdplugin.LN2d', eps=1e-6),  # noqa: B006  # read only
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        channels = in_channels if isinstance(in_channels, int) else in_channels[-1]
        self.num_outs = len(scales) if num_outs is None else num_outs
        if not scales or self.num_outs < len(scales):
            raise ConfigError(
                f'Expected at least one scale and num_outs for all of them but got scales {tuple(scales)} and '
                f'num_outs {self.num_outs}. Leave num_outs out for one level for each scale.'
            )
        self.levels = nn.ModuleList(_level(channels, out_channels, scale, norm_cfg) for scale in scales)

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the levels [N, D, H * scale, W * scale].

        Args:
            inputs: maps of the backbone, of which the last [N, C, H, W] is read; or that map.
        """
        last = inputs if isinstance(inputs, Tensor) else inputs[-1]
        outputs = [level(last) for level in self.levels]
        while len(outputs) < self.num_outs:
            outputs.append(F.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        return tuple(outputs)


def _level(channels: int, out_channels: int, scale: float, norm_cfg: dict[str, Any] | None) -> nn.Sequential:
    """Return the layers of one level: resampling, 1x1, 3x3."""
    steps = math.log2(scale) if scale > 0 else math.nan
    if not steps.is_integer():
        raise ConfigError(f'Expected scales that are powers of two but got {scale}. Use 4, 2, 1 or 0.5, for example.')
    layers: list[nn.Module] = []
    if steps < 0:
        layers.append(nn.MaxPool2d(round(1 / scale)))
    for step in range(int(steps)):
        if step:
            layers += [] if norm_cfg is None else [build_norm_layer(norm_cfg, channels)[1]]
            layers.append(nn.GELU())
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels //= 2
    for width, kernel in ((channels, 1), (out_channels, 3)):
        layers.append(ConvModule(width, out_channels, kernel, padding=kernel // 2, norm_cfg=norm_cfg, act_cfg=None))
    return nn.Sequential(*layers)
