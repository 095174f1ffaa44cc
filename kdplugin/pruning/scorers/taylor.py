"""Importance by what the loss would lose to first order: the gradient of a gate in front of each unit."""

from __future__ import annotations

import torch
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.pruning.blocks import HEADS
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.gates import gated
from kdplugin.weights.mapping.execution import untouched


def taylor_scores(calibration: Calibration, unit: str) -> Tensor:
    """Return the mean over batches of |dLoss / dgate| [L, U], at gates of 1.

    L(gate 0) - L(gate 1) = -dL/dgate to first order (Molchanov et al., ICLR 2017, on feature maps; Michel et al.,
    NeurIPS 2019, on heads). The absolute value is taken for each batch, after its images cancel each other: small
    batches are nearer to the mean over images of the papers. The gates of neurons change what ``ffn_ln`` normalises
    by, as pruning does. The model runs in eval mode, and no parameter gets a gradient.

    Args:
        calibration: with an ``objective``.
        unit: 'heads' or 'neurons'.

    Raises:
        ConfigError: the objective is no number that depends on the gates, or is not finite.
    """
    blocks, model = calibration.blocks, calibration.model
    weight = blocks[0, 'attn.proj'].weight
    gates = torch.ones(len(blocks), blocks.sizes.units(unit), device=weight.device, requires_grad=True)
    total = torch.zeros(gates.shape, dtype=torch.float64)
    opened = gated(blocks, heads=gates) if unit == HEADS else gated(blocks, neurons=gates)
    with untouched(model), opened, torch.enable_grad():
        for batch in calibration.walk(f'taylor of {unit}'):
            loss = calibration.objective(model, batch)
            total += _gradient(loss, gates).double().abs().cpu()
    return total / len(calibration.batches)


def _gradient(loss: object, gates: Tensor) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        got = f'shape {tuple(loss.shape)}' if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigError(
            f'Expected an objective that returns one number with a gradient but got {got}. '
            'Return the sum of the losses, outside of torch.no_grad().'
        )
    (gradient,) = torch.autograd.grad(loss, [gates], allow_unused=True)
    if gradient is None:
        raise ConfigError(
            'Expected an objective that depends on the blocks but its gradient is none. Run the pruned backbone in it.'
        )
    if not torch.isfinite(gradient).all():
        raise ConfigError(
            f'Expected a finite gradient but got NaN or infinity (loss {float(loss.detach()):g}). Use float32.'
        )
    return gradient
