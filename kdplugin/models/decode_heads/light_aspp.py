"""A light decoder: ASPP on the deepest level, skips from the shallow ones.

Shapes: N image, C channel, H and W of a level, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule
from mmseg.models.decode_heads.aspp_head import ASPPModule
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.registry import MODELS


@MODELS.register_module()
class LightASPPHead(BaseDecodeHead):
    """ASPP at the deepest level, then one step per skip: upsample, concatenate, separable convolution.

    Source: Chen et al., Encoder-Decoder with Atrous Separable Convolution (ECCV 2018), here narrow and with a
    skip at each of the shallow levels. With backbone levels low, mid and top:

    ``x = bottleneck([aspp.0(top), aspp.1(top), ..., image_pool(top)])``
    ``x = decoder.1([up(x), skips.1(mid)])``, ``x = decoder.0([up(x), skips.0(low)])``
    ``logits = conv_seg(dropout(x))``, at the stride of low

    These names are the taps: ``conv_seg`` for logits, ``bottleneck`` for the context, ``decoder.0`` for the
    last feature. The branch ``image_pool`` has a bias and no normalisation: on its 1x1 map BatchNorm refuses
    to train with one image and would estimate from N values otherwise.

    Args:
        in_channels: Channels of the levels, shallow first, the ASPP level last.
        channels: Width of ASPP and decoder.
        in_index: Position of each level among the outputs of the backbone.
        dilations: ASPP rates; a rate of 1 is a 1x1 convolution. Of a rate beyond the size of the map only the
            centre of the kernel is left.
        skip_channels: Width of each projected skip.
        kwargs: What mmseg's ``BaseDecodeHead`` takes (``num_classes``, ``norm_cfg``, ``loss_decode``, ...).

    Raises:
        ConfigError: If there are fewer than two levels, or another number of ``in_index``.

    Example:
        >>> head = LightASPPHead((16, 24, 576), num_classes=21, norm_cfg={'type': 'BN'})
        >>> levels = [torch.rand(1, 16, 32, 48), torch.rand(1, 24, 16, 24), torch.rand(1, 576, 8, 12)]
        >>> head(levels).shape
        torch.Size([1, 21, 32, 48])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 128,
        *,
        in_index: Sequence[int] = (0, 1, 2),
        dilations: Sequence[int] = (1, 6, 12),
        skip_channels: int = 32,
        **kwargs: Any,
    ) -> None:
        if len(in_channels) < 2 or len(in_channels) != len(in_index):
            raise ConfigError(
                f'Expected at least two in_channels and one in_index for each but got {in_channels} '
                f'and {in_index}. Name every level once in both.'
            )
        super().__init__(
            in_channels=tuple(in_channels),
            channels=channels,
            in_index=tuple(in_index),
            input_transform='multiple_select',
            **kwargs,
        )
        layer_cfg = {'norm_cfg': self.norm_cfg, 'act_cfg': self.act_cfg}
        *skip_widths, top_width = in_channels
        self.aspp = ASPPModule(tuple(dilations), top_width, channels, conv_cfg=self.conv_cfg, **layer_cfg)
        self.image_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            ConvModule(top_width, channels, 1, conv_cfg=self.conv_cfg, act_cfg=self.act_cfg),
        )
        self.bottleneck = ConvModule((len(dilations) + 1) * channels, channels, 1, conv_cfg=self.conv_cfg, **layer_cfg)
        self.skips = nn.ModuleList(
            ConvModule(width, skip_channels, 1, conv_cfg=self.conv_cfg, **layer_cfg) for width in skip_widths
        )
        self.decoder = nn.ModuleList(
            DepthwiseSeparableConvModule(channels + skip_channels, channels, 3, padding=1, **layer_cfg)
            for _ in skip_widths
        )

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return logits [N, K, H, W] at the size of the shallowest level.

        Args:
            inputs: The backbone's outputs, each [N, C, H, W].
        """
        *shallow, top = self._transform_inputs(inputs)
        pooled = self.image_pool(top).expand(-1, -1, *top.shape[2:])
        x = self.bottleneck(torch.cat([*self.aspp(top), pooled], dim=1))
        for level, skip, decode in reversed(list(zip(shallow, self.skips, self.decoder, strict=True))):
            x = resize(x, size=level.shape[2:], mode='bilinear', align_corners=self.align_corners)
            x = decode(torch.cat([x, skip(level)], dim=1))
        return self.cls_seg(x)
