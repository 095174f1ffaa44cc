"""``kdplugin.WanLiteStudent``: Wan's video transformer without time, small enough to train.

N image, C channel of the VAE, H W latent pixel, M token of text.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from kdplugin.errors import ConfigError, DataError
from kdplugin.models.generators.wan_lite_blocks import WanLiteBlock, WanLiteConditions, layer_norm
from kdplugin.models.generators.wan_rope import rotary_angles
from kdplugin.registry import MODELS


@MODELS.register_module()
class WanLiteStudent(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Wan's transformer (Wan Team, "Wan: Open and Advanced Large-Scale Video Generative Models", arXiv 2503.20314)
    for single images: the network and the tensor names of diffusers' ``WanTransformer3DModel``, in two dimensions.

    With the teacher's own sizes and weights it gives the teacher's output for one frame. The patch embedding is a
    Conv2d; positions are rotary ones of rows and columns, with the teacher's frequencies of those pairs that
    ``WeightProjectionHook`` keeps of a wider head.

    Args:
        hidden_size: width D of the stream.
        depth: number of blocks.
        num_heads: of both attentions.
        ffn_size: hidden units of the MLPs, 4 D by default.
        in_channels: of the latents.
        out_channels: of the velocity, as ``in_channels`` by default.
        text_dim: width of the text encoder.
        freq_dim: of the timestep's sinusoid.
        patch_size: side of a patch, in latent pixels.
        rope_head_dim: width of the teacher's heads, whose frequencies are used; that of its own heads by default.
        eps: of all norms.

    Raises:
        ConfigError: sizes that do not go together.

    Example:
        >>> student = WanLiteStudent(hidden_size=24, depth=2, num_heads=2, text_dim=8)
        >>> latents, text = torch.zeros(1, 16, 8, 8), torch.zeros(1, 5, 8)
        >>> student(latents, torch.tensor([500.0]), text).sample.shape
        torch.Size([1, 16, 8, 8])
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ['WanLiteBlock']  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        hidden_size: int = 1024,
        depth: int = 16,
        num_heads: int = 16,
        ffn_size: int | None = None,
        in_channels: int = 16,
        out_channels: int | None = None,
        text_dim: int = 4096,
        freq_dim: int = 256,
        patch_size: int = 2,
        rope_head_dim: int | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        check_sizes(hidden_size, depth, num_heads, rope_head_dim)
        head = hidden_size // num_heads
        self.rope_widths = (rope_head_dim or head, head)
        self.patch_embedding = nn.Conv2d(in_channels, hidden_size, patch_size, patch_size)
        self.condition_embedder = WanLiteConditions(hidden_size, text_dim, freq_dim)
        ffn = ffn_size or 4 * hidden_size
        self.blocks = nn.ModuleList(WanLiteBlock(hidden_size, ffn, num_heads, eps) for _ in range(depth))
        self.proj_out = nn.Linear(hidden_size, (out_channels or in_channels) * patch_size**2)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, hidden_size) / hidden_size**0.5)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Return the velocity (N, C, H, W), noise minus image, as ``.sample``.

        Args:
            hidden_states: noisy latents (N, C, H, W).
            timestep: (N,), 0 to 1000.
            encoder_hidden_states: text (N, M, text_dim).
            encoder_attention_mask: (N, M), true where a token counts; the teacher has none.
            return_dict: else a tuple.

        Raises:
            DataError: latents that are no whole patches.
        """
        patch = self.patch_embedding.kernel_size[0]
        if hidden_states.ndim != 4 or hidden_states.shape[2] % patch or hidden_states.shape[3] % patch:
            raise DataError(
                f'Expected latents (N, C, H, W) with H and W divisible by {patch} but got '
                f'{tuple(hidden_states.shape)}. Give single images, cut or padded.'
            )
        hidden = self.patch_embedding(hidden_states)
        grid = (hidden.shape[2], hidden.shape[3])
        hidden = hidden.flatten(2).transpose(1, 2).contiguous()
        embedded, modulation, text = self.condition_embedder(timestep, encoder_hidden_states)
        mask = None if encoder_attention_mask is None else encoder_attention_mask.bool()[:, None, None]
        angles = self._angles(grid, hidden.device)
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                hidden = self._gradient_checkpointing_func(block, hidden, text, modulation, angles, mask)
            else:
                hidden = block(hidden, text, modulation, angles, mask)
        shift, scale = (self.scale_shift_table + embedded[:, None]).chunk(2, 1)
        config: Any = self.config
        read = layer_norm(hidden, config.eps) * (1 + scale) + shift
        velocity = unpatchify(self.proj_out(read.to(hidden.dtype)), grid, patch)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def _angles(self, grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
        angles = rotary_angles(grid, *self.rope_widths)
        return angles.cos().float().to(device), angles.sin().float().to(device)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Return maps (N, C, H, W) of patches (N, L, patch * patch * C)."""
    maps = patches.unflatten(1, grid).unflatten(3, (patch, patch, -1))
    return maps.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def check_sizes(hidden_size: int, depth: int, num_heads: int, rope_head_dim: int | None) -> None:
    """Raise ConfigError for sizes that do not go together."""
    if min(hidden_size, depth, num_heads) < 1 or hidden_size % 2:
        raise ConfigError(
            f'Expected an even hidden_size and at least one block and head but got hidden_size={hidden_size}, '
            f'depth={depth}, num_heads={num_heads}. Rotary positions turn pairs of values.'
        )
    if hidden_size % num_heads or hidden_size // num_heads % 2:
        raise ConfigError(
            f'Expected num_heads that divide hidden_size={hidden_size} into heads of an even width but got '
            f'{num_heads}. Choose for example {_head_count(hidden_size)}.'
        )
    head = hidden_size // num_heads
    if rope_head_dim is not None and (rope_head_dim % 2 or rope_head_dim < head):
        raise ConfigError(
            f"Expected rope_head_dim, the width of the teacher's heads, to be even and at least that of ours, {head}, "
            f'but got {rope_head_dim}. Leave it out for frequencies of its own.'
        )


def _head_count(width: int) -> int:
    """Return a count of heads that divides a width, with heads near 64 wide."""
    counts = [count for count in range(1, width // 2 + 1) if width % (2 * count) == 0]
    return min(counts, key=lambda count: abs(width // count - 64))
