"""Importance by what the block's output loses: activations that a unit sends out, through the weights that read it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.pruning.blocks import HEADS, Blocks
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.statistics import real_tokens
from kdplugin.weights.mapping.execution import untouched

DAMPING = 1e-6
"""Of the mean of a covariance's diagonal, added to it before it is inverted."""


def reconstruction_scores(calibration: Calibration, unit: str, *, refit: bool = False) -> Tensor:
    """Return the share of the branch's output energy that goes with each unit [L, U].

    With y = W x, x what ``attn.proj`` (heads) or ``mlp.w3`` (neurons) reads and C = E[x x^T] over all tokens, taking
    unit u away changes y by W_u x_u, on average by E|W_u x_u|^2 = tr(W_u C_uu W_u^T); this is divided by E|W x|^2.
    With ``refit`` the other columns of W are fitted again, and what is lost is tr(W_u ((C^-1)_uu)^-1 W_u^T) (Optimal
    Brain Surgeon, Hassibi and Stork, 1993): small for a unit that others can stand in for. Use it where compensation
    follows. Neurons are scored behind ``ffn_ln``, as it is with all of them.

    Args:
        calibration: with batches.
        unit: 'heads' or 'neurons'.
        refit: count what is lost after the best fit of the other units.
    """
    blocks = calibration.blocks
    units = blocks.sizes.units(unit)
    reader = 'attn.proj' if unit == HEADS else 'mlp.w3'
    moments = input_moments(calibration, reader, f'reconstruction of {unit}')
    rows = []
    for block, moment in enumerate(moments):
        weight = blocks[block, reader].weight.detach().double().to(moment.device)
        lost = _lost_with_refit(weight, moment, units) if refit else _lost(weight, moment, units)
        rows.append((lost / _energy(weight, moment).clamp_min(1e-300)).cpu())
    return torch.stack(rows)


def input_moments(calibration: Calibration, path: str, doing: str) -> list[Tensor]:
    """Return E[x x^T] [D, D] over tokens of what a module of each block reads, in float64; padding is left out."""
    blocks: Blocks = calibration.blocks
    sums: dict[int, Any] = {}
    counts: dict[int, int] = {}

    real: dict[int, Tensor] = {}

    def note(block: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            real[block] = real_tokens(inputs[0]).flatten()

        return hook

    def adder(block: int) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).double()
            x = x[real[block]] if block in real else x
            sums[block] = sums.get(block, 0) + x.T @ x
            counts[block] = counts.get(block, 0) + len(x)

        return hook

    with contextlib.ExitStack() as stack:
        for block in range(len(blocks)):
            if path.startswith('attn.'):
                stack.callback(blocks[block, 'attn'].register_forward_pre_hook(note(block)).remove)
            stack.callback(blocks[block, path].register_forward_pre_hook(adder(block)).remove)
        stack.enter_context(untouched(calibration.model))
        for batch in calibration.walk(doing):
            calibration.run(calibration.model, batch)
    return [sums[block] / counts[block] for block in range(len(blocks))]


def _energy(weight: Tensor, moment: Tensor) -> Tensor:
    return ((weight @ moment) * weight).sum()


def _lost(weight: Tensor, moment: Tensor, units: int) -> Tensor:
    """Return tr(W_u C_uu W_u^T) for each unit [U]."""
    size = weight.shape[1] // units
    columns = weight.unflatten(1, (units, size)).transpose(0, 1)
    own = moment.unflatten(0, (units, size)).unflatten(2, (units, size)).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    return ((columns @ own) * columns).sum((1, 2))


def _lost_with_refit(weight: Tensor, moment: Tensor, units: int) -> Tensor:
    """Return tr(W_u ((C^-1)_uu)^-1 W_u^T) for each unit [U]."""
    size = weight.shape[1] // units
    damped = moment + DAMPING * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype).to(moment)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    own = inverse.unflatten(0, (units, size)).unflatten(2, (units, size)).diagonal(dim1=0, dim2=2).movedim(-1, 0)
    columns = weight.unflatten(1, (units, size)).transpose(0, 1)
    return (torch.linalg.solve(own, columns.transpose(1, 2)) * columns.transpose(1, 2)).sum((1, 2))
