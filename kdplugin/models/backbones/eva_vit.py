"""EVA-02's vision transformer in its detection form, whole or with heads and neurons taken out.

Shapes: N image, H W pixels, h w grid of tokens, C channel, P position of the pretrained table, A head, d width of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.models.backbones.eva_blocks import BlockSize, EvaBlock, PatchEmbed
from kdplugin.models.backbones.eva_rope import RotaryPositions
from kdplugin.models.backbones.eva_sizes import checked_outputs, per_block, width_of_heads, windowed_blocks
from kdplugin.registry import MODELS


@MODELS.register_module()
class EVAViT(BaseModule):
    """EVA-02 with windows, rotary positions and SwiGLU: one map at the stride of a patch from each chosen block.

    Source: EVA-02 (Fang et al., arXiv 2303.11331), its detection form, as ORION (arXiv 2503.19755) uses it. The
    defaults are ORION's: 511 tensors, 303,388,608 parameters beside the rotary tables, under the names of
    ``img_backbone.*`` in its checkpoint. There is no class token and no final norm.

    ``blocks.N`` puts out [N, h, w, C], ``blocks.N.attn.qk`` the rotated queries and keys.

    Args:
        img_size: side in pixels of the images whose rotary tables are kept as buffers; others get theirs when met.
        patch_size: side of a patch.
        window_size: side of a window in tokens; the grid is padded to a multiple of it.
        in_chans: channels of images.
        embed_dim: C.
        depth: number of blocks.
        num_heads: A, one number or one for each block.
        head_dim: d, which also sets the scale d^-0.5; None for ``embed_dim // num_heads``, of an unpruned model.
        mlp_ratio: the hidden width is ``int(embed_dim * mlp_ratio)``.
        ffn_hidden: hidden width itself, one number or one for each block.
        qkv_bias: with biases of q and v; k has none.
        drop_path_rate: of the last block; it grows from 0 block by block.
        rope: with rotary positions.
        pt_hw_seq_len: positions along an axis in pretraining.
        intp_freq: spread them over windows and grids of any length, else count tokens.
        window_block_indexes: blocks that attend in windows; None for all but each third (2, 5, 8, ...).
        pretrain_img_size: side in pixels of the images that the absolute positions were learned on.
        pretrain_use_cls_token: the absolute positions begin with that of a class token, which is not used.
        out_indices: blocks whose maps come out, ascending, the last block among them; None for that alone.
        frozen_stages: -1 for none, 0 for patches and positions, n for those and the first n blocks.
        with_cp: activation checkpointing of every block while training.
        init_cfg: mmengine's initialisation config.

    Raises:
        ConfigError: sizes that contradict each other.

    Example:
        >>> backbone = EVAViT(img_size=64, embed_dim=48, depth=3, num_heads=4, window_size=2)
        >>> [tuple(level.shape) for level in backbone(torch.rand(1, 3, 64, 96))]
        [(1, 48, 4, 6)]
    """

    def __init__(
        self,
        img_size: int = 640,
        patch_size: int = 16,
        window_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int | Sequence[int] = 16,
        head_dim: int | None = None,
        mlp_ratio: float = 8 / 3,
        ffn_hidden: int | Sequence[int] | None = None,
        qkv_bias: bool = True,
        drop_path_rate: float = 0.3,
        rope: bool = True,
        pt_hw_seq_len: int = 16,
        intp_freq: bool = True,
        window_block_indexes: Sequence[int] | None = None,
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        head_dim = width_of_heads(embed_dim, num_heads) if head_dim is None else head_dim
        heads = per_block(num_heads, depth, 'num_heads')
        hidden = per_block(int(embed_dim * mlp_ratio) if ffn_hidden is None else ffn_hidden, depth, 'ffn_hidden')
        windowed = windowed_blocks(window_block_indexes, depth, window_size)
        self.embed_dim, self.patch_size, self.frozen_stages = embed_dim, patch_size, frozen_stages
        self.out_indices = checked_outputs(out_indices, depth)
        self.cls_positions = int(pretrain_use_cls_token)
        positions = (pretrain_img_size // patch_size) ** 2 + self.cls_positions
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, embed_dim))
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        if rope:
            grid, axis = img_size // patch_size, (head_dim, pt_hw_seq_len, intp_freq)
            self.rope_win = RotaryPositions((window_size, window_size), *axis)
            self.rope_glb = RotaryPositions((grid, grid), *axis)
        self.blocks = nn.ModuleList()
        for index, rate in enumerate(np.linspace(0, drop_path_rate, depth).tolist()):
            size = BlockSize(embed_dim, heads[index], head_dim, hidden[index], window_size * (index in windowed))
            table = (self.rope_win if index in windowed else self.rope_glb) if rope else None
            self.blocks.append(EvaBlock(size, table, qkv_bias, rate, with_cp))
        self._initialise()
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen maps, shallow first.

        Args:
            images: [N, 3, H, W], H and W multiples of the patch size.

        Returns:
            One [N, C, H / patch, W / patch] for each entry of ``out_indices``.

        Raises:
            ConfigError: the images are no multiples of the patch size.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ConfigError(
                f'Expected images with sides that divide by {self.patch_size} but got {height} x {width}. '
                f'Set pad_size_divisor={self.patch_size} in data_preprocessor.'
            )
        x = self.patch_embed(images)
        x = x + grid_positions(self.pos_embed[:, self.cls_positions :], (x.shape[1], x.shape[2])).to(x.dtype)
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.out_indices:
                levels.append(x.permute(0, 3, 1, 2).contiguous())
        return tuple(levels)

    def train(self, mode: bool = True) -> EVAViT:
        """Switch to training, except what ``frozen_stages`` holds still."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        return [] if self.frozen_stages < 0 else [self.patch_embed, *self.blocks[: self.frozen_stages]]

    def _freeze(self) -> None:
        if not -1 <= self.frozen_stages <= len(self.blocks):
            raise ConfigError(
                f'Expected frozen_stages from -1 to {len(self.blocks)} but got {self.frozen_stages}. Correct it.'
            )
        for module in self._frozen_modules():
            module.requires_grad_(False).eval()
        self.pos_embed.requires_grad_(self.frozen_stages < 0)

    def _initialise(self) -> None:
        """Initialise as EVA-02 does: std 0.02, the writers of block n divided by sqrt(2 n)."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        block: Any
        for number, block in enumerate(self.blocks, 1):
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    writes = module in (block.attn.proj, block.mlp.w3)
                    nn.init.trunc_normal_(module.weight, std=0.02 / (math.sqrt(2 * number) if writes else 1))
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)


def grid_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return absolute positions [1, h, w, C] of a grid from a square table [1, P, C], bicubic where sizes differ."""
    side = math.isqrt(positions.shape[1])
    table = positions.unflatten(1, (side, side))
    if grid == (side, side):
        return table
    resized = F.interpolate(table.permute(0, 3, 1, 2).float(), size=grid, mode='bicubic', align_corners=False)
    return resized.permute(0, 2, 3, 1)
