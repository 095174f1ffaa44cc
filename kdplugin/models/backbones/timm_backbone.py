"""Any backbone of timm in an mmdet or mmseg model.

Shapes: N image, H height, W width, C channel, S stride of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from mmengine.model import BaseModule
from torch import Tensor, nn

from kdplugin.checkpoint_schemes import local_file
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.registry import MODELS
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """The levels of a timm model: ``timm.create_model(model_name, features_only=True)``.

    Its tensors are timm's own behind ``net.`` (``net.layer1.0.conv1.weight``), except that of some convolutional nets
    timm joins the first parts (``net.stages_0.blocks.0.conv_dw.weight``) and that it wraps transformers
    (``net.model.blocks.0.attn.qkv.weight``). A checkpoint that a training with this backbone saved has these names; one
    in timm's names is given as ``checkpoint``.

    As with every mm* backbone, weights are read when the Runner initialises the model, not when it is built.

    Args:
        model_name: a name of ``timm.list_models()``, with or without a tag ('convnext_nano.in12k_ft_in1k').
        out_indices: levels to return; None for all that timm has (strides 2 or 4 to 32; blocks of a ViT).
        pretrained: read timm's own weights from its hub.
        checkpoint: read a file in timm's names instead, strictly: a .pth or .safetensors, or a URL.
        init_cfg: mmengine's initialisation config.
        settings: of the model, such as ``output_stride=8``, ``img_size=512`` or ``drop_path_rate=0.1``.

    Raises:
        ConfigError: timm has no such model, or it has no levels, or takes no such settings.
        CheckpointError: at initialisation, if the file does not fit.

    Example:
        >>> import torch
        >>> backbone = TimmBackbone('resnet18', out_indices=(1, 2, 3, 4))
        >>> backbone.channels, backbone.strides
        ((64, 128, 256, 512), (4, 8, 16, 32))
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int] | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(init_cfg)
        if pretrained and checkpoint:
            raise ConfigError(
                f'Expected either pretrained=True or a checkpoint but got both, and {checkpoint}. Keep one.'
            )
        self.model_name, self.settings = model_name, settings
        self.pretrained, self.checkpoint = pretrained, checkpoint
        self.levels = {} if out_indices is None else dict(out_indices=tuple(out_indices))
        self.net = build_features(model_name, **self.levels, **settings)
        info: Any = self.net.feature_info
        self.channels: tuple[int, ...] = tuple(info.channels())
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.channels_last = str(getattr(self.net, 'output_fmt', 'NCHW')).endswith('NHWC')

    def init_weights(self) -> None:
        """Initialise as mmengine does, then read the weights that the settings name."""
        super().init_weights()
        if self.pretrained:
            source: dict[str, Any] = {}
        elif self.checkpoint is not None:
            source = dict(pretrained_cfg_overlay=dict(state_dict=whole_weights(self)))
        else:
            return
        loaded = build_features(self.model_name, pretrained=True, **source, **self.levels, **self.settings)
        self.net.load_state_dict(loaded.state_dict())

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen levels, shallow first.

        Args:
            images: [N, 3, H, W].

        Returns:
            One [N, C, H/S, W/S] for each entry of ``out_indices``.
        """
        levels = self.net(images)
        if self.channels_last:
            levels = [level.permute(0, 3, 1, 2).contiguous() for level in levels]
        return tuple(levels)


def build_features(model_name: str, **settings: Any) -> nn.Module:
    """Return timm's model cut down to its levels.

    Raises:
        ConfigError: there is none of this name, or not with these settings.
    """
    bare = model_name.split('.')[0]
    if not timm.is_model(bare):
        raise ConfigError(f'Expected a model of timm but got {model_name!r}.{did_you_mean(bare, timm.list_models())}')
    try:
        return timm.create_model(model_name, features_only=True, **settings)
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        raise ConfigError(
            f'Expected {model_name} to be built with levels and settings {settings} but timm says: '
            f'{(str(error).splitlines() or [type(error).__name__])[0]}. Correct out_indices or the settings.'
        ) from error


def whole_weights(backbone: TimmBackbone) -> dict[str, Tensor]:
    """Read a backbone's checkpoint into timm's whole model, strictly, and return its tensors.

    Raises:
        CheckpointError: the file is missing, unsafe or does not fit.
    """
    path = local_file(str(backbone.checkpoint))
    overlay = dict(state_dict=state_dict_of(read_checkpoint(path), str(path)))
    try:
        whole = timm.create_model(
            backbone.model_name, pretrained=True, pretrained_cfg_overlay=overlay, **backbone.settings
        )
    except RuntimeError as error:
        raise CheckpointError(
            f'Expected {path} to hold all weights of {backbone.model_name} under the names of timm but got '
            f'{" ".join(str(error).split())[:200]}. Give a checkpoint of this model with its classifier.'
        ) from None
    return whole.state_dict()
