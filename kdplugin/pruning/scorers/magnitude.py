"""Importance by the size of weights: no data, no forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from kdplugin.pruning.blocks import HEADS, Blocks
from kdplugin.pruning.calibration import Calibration


@torch.no_grad()
def magnitude_scores(calibration: Calibration, unit: str) -> Tensor:
    """Return the L2 norm of each unit's weights [L, U] (the norm of filters in Li et al., ICLR 2017, of L1 there).

    A head has its rows of q, k and v and its columns of proj. A neuron has its rows of w1 and w2 and its column of w3,
    times the gain of ``ffn_ln`` that the column reads it with. Biases are left out.

    Args:
        calibration: only its model counts.
        unit: 'heads' or 'neurons'.
    """
    blocks = calibration.blocks
    units = blocks.sizes.units(unit)
    energy = _head_energy if unit == HEADS else _neuron_energy
    rows = [energy(blocks, block).reshape(units, -1).sum(1).sqrt() for block in range(len(blocks))]
    return torch.stack(rows).cpu()


def _head_energy(blocks: Blocks, block: int) -> Tensor:
    """Return the energy of each row of q, k, v and column of proj [A * d]."""
    rows = [blocks[block, f'attn.{name}_proj'].weight.double().square().sum(1) for name in 'qkv']
    columns = blocks[block, 'attn.proj'].weight.double().square().sum(0)
    return torch.stack([*rows, columns]).sum(0)


def _neuron_energy(blocks: Blocks, block: int) -> Tensor:
    """Return the energy of each row of w1, w2 and read column of w3 [F]."""
    rows = [blocks[block, f'mlp.{name}'].weight.double().square().sum(1) for name in ('w1', 'w2')]
    gain = blocks[block, 'mlp.ffn_ln'].weight.double()
    columns = (blocks[block, 'mlp.w3'].weight.double() * gain).square().sum(0)
    return torch.stack([*rows, columns]).sum(0)
