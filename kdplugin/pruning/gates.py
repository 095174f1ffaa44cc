"""Gates in front of heads and neurons of a running model: 1 lets a unit through, 0 takes it away.

A head's gate scales its columns of what ``attn.proj`` reads, which is all that the block sees of it. A neuron's gate
sits in ``ffn_ln``: a pruned model normalises over the neurons that it keeps, so a gate in front of ``ffn_ln`` would
leave zeros in its mean and variance, and one in front of ``w3`` those of the neurons that are gone. Here the gates are
weights of the mean and the variance as well, so gates of 0 and 1 give exactly the pruned model, and the gradient of a
gate counts what the others gain.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.pruning.blocks import Blocks, blocks_of
from kdplugin.pruning.plan import PruningPlan


def gated_layer_norm(x: Tensor, gate: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return LayerNorm over gated units: g * (weight * (x - m) / sqrt(v + eps) + bias).

    m = sum(g x) / sum(g) and v = sum(g (x - m)^2) / sum(g). Gates of 1 give the plain LayerNorm, gates of 0 and 1 that
    of the units with 1, and 0 for the others.

    Args:
        x: [..., F].
        gate: [F].
        norm: over F units.

    Example:
        >>> norm = nn.LayerNorm(4)
        >>> gated_layer_norm(torch.tensor([1.0, 3.0, 50.0, 7.0]), torch.tensor([1.0, 1.0, 0.0, 0.0]), norm).tolist()
        [-0.9999949932098389, 0.9999949932098389, 0.0, 0.0]
    """
    total = gate.sum()
    centred = x - (gate * x).sum(-1, keepdim=True) / total
    variance = (gate * centred.square()).sum(-1, keepdim=True) / total
    return gate * (centred * torch.rsqrt(variance + norm.eps) * norm.weight + norm.bias)


def gate_heads(x: Tensor, gate: Tensor) -> Tensor:
    """Return what ``attn.proj`` reads with each head scaled.

    Args:
        x: [..., A * d].
        gate: [A].
    """
    return (x.unflatten(-1, (len(gate), -1)) * gate[:, None].to(x.dtype)).flatten(-2)


@contextlib.contextmanager
def gated(blocks: Blocks, *, heads: Tensor | None = None, neurons: Tensor | None = None) -> Iterator[None]:
    """Run a model with gates; they are gone after the block, also after an error.

    Args:
        blocks: of the model.
        heads: [L, A].
        neurons: [L, F].
    """
    with contextlib.ExitStack() as stack:
        for block in range(len(blocks)):
            if heads is not None:
                handle = blocks[block, 'attn.proj'].register_forward_pre_hook(_head_hook(heads, block))
                stack.callback(handle.remove)
            if neurons is not None:
                handle = blocks[block, 'mlp.ffn_ln'].register_forward_hook(_neuron_hook(neurons, block))
                stack.callback(handle.remove)
        yield


def _head_hook(gates: Tensor, block: int) -> Any:
    return lambda _, inputs: (gate_heads(inputs[0], gates[block]),)


def _neuron_hook(gates: Tensor, block: int) -> Any:
    return lambda norm, inputs, output: gated_layer_norm(inputs[0], gates[block], norm).to(output.dtype)


@contextlib.contextmanager
def masked(model: nn.Module, plan: PruningPlan) -> Iterator[None]:
    """Run a whole model as if it were pruned by a plan.

    Raises:
        CheckpointError: the plan is one for another model.
    """
    blocks = blocks_of(model, plan.prefix)
    require_fit(plan, blocks)
    device = blocks[0, 'attn.proj'].weight.device
    with gated(
        blocks,
        heads=_mask(plan.heads, plan.num_heads, device) if plan.prunes_heads else None,
        neurons=_mask(plan.neurons, plan.hidden, device) if plan.prunes_neurons else None,
    ):
        yield


def require_fit(plan: PruningPlan, blocks: Blocks) -> None:
    """Raise CheckpointError if a plan is one for another model."""
    sizes = blocks.sizes
    wanted = (plan.depth, plan.num_heads, plan.head_dim, plan.hidden)
    if wanted != (sizes.depth, sizes.num_heads, sizes.head_dim, sizes.hidden):
        raise CheckpointError(
            f'Expected the model of the plan, with {plan.depth} blocks of {plan.num_heads} heads x {plan.head_dim} and '
            f'{plan.hidden} neurons, but got {sizes.depth} blocks of {sizes.num_heads} x {sizes.head_dim} and '
            f'{sizes.hidden}. Make the plan for this model.'
        )


def _mask(kept: tuple[tuple[int, ...], ...], total: int, device: torch.device) -> Tensor:
    mask = torch.zeros(len(kept), total, device=device)
    for block, units in enumerate(kept):
        mask[block, list(units)] = 1
    return mask
