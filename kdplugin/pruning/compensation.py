"""Let the kept units stand in for those that go: new ``proj``, ``w3`` and ``ffn_ln`` by least squares.

The wanted outputs are those of the whole model's own blocks on calibration batches, each block by itself: a block does
not see what the pruned blocks before it change.

Shapes: T token, K kept unit's columns, D width of the stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.pruning.blocks import Blocks, prefix_of
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.gates import require_fit
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.statistics import LinearSums, NormSums, real_tokens
from kdplugin.weights.mapping.execution import untouched

PARTS = ('proj', 'w3', 'ffn_ln')
"""What can be fitted."""
RIDGE = 1e-3


@dataclass
class BlockSums:
    """What one block saw: inputs and outputs of ``proj`` and ``w3``, and ``ffn_ln`` beside itself."""

    proj: LinearSums | None = None
    w3: LinearSums | None = None
    norm: NormSums | None = None


@dataclass(frozen=True)
class Compensated:
    """A pruned state dict with fitted tensors.

    Args:
        state: all tensors.
        errors: {'blocks.3.attn.proj': (before, after)}: the share of the output's variance that is missed on the
            calibration batches, with sliced and with fitted weights.
    """

    state: dict[str, Tensor]
    errors: dict[str, tuple[float, float]] = field(default_factory=dict)


def collect(calibration: Calibration, plan: PruningPlan) -> list[BlockSums]:
    """Run the whole model on the batches and return the sums of each block, for ``compensate``.

    Memory is that of a covariance of the kept units in each pruned block, in float64.

    Raises:
        CheckpointError: the plan is one for another model.
        ConfigError: there are no batches.
    """
    blocks = calibration.blocks
    require_fit(plan, blocks)
    sums = [BlockSums() for _ in range(len(blocks))]
    with contextlib.ExitStack() as stack:
        for block in range(len(blocks)):
            if plan.head_counts[block] < plan.num_heads:
                _watch_heads(stack, blocks, block, plan.rows(block), sums[block])
            if plan.neuron_counts[block] < plan.hidden:
                _watch_neurons(stack, blocks, block, plan.neurons[block], sums[block])
        stack.enter_context(untouched(calibration.model))
        for batch in calibration.walk('compensation'):
            calibration.run(calibration.model, batch)
    return sums


def _watch_heads(stack: contextlib.ExitStack, blocks: Blocks, block: int, rows: list[int], sums: BlockSums) -> None:
    real: list[Tensor] = []

    def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        real.append(real_tokens(inputs[0]).flatten())

    def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        chosen = real.pop()
        seen = LinearSums.of(inputs[0][..., rows].flatten(0, -2)[chosen], output.flatten(0, -2)[chosen])
        sums.proj = seen if sums.proj is None else sums.proj + seen

    stack.callback(blocks[block, 'attn'].register_forward_pre_hook(before).remove)
    stack.callback(blocks[block, 'attn.proj'].register_forward_hook(after).remove)


def _watch_neurons(
    stack: contextlib.ExitStack, blocks: Blocks, block: int, kept: tuple[int, ...], sums: BlockSums
) -> None:
    normalised: list[Tensor] = []
    columns = list(kept)

    def norm(module: nn.LayerNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        u = normalise(inputs[0][..., columns].flatten(0, -2), module.eps)
        seen = NormSums.of(u, output[..., columns].flatten(0, -2))
        sums.norm = seen if sums.norm is None else sums.norm + seen
        normalised.append(u)

    def reader(_: nn.Module, __: Any, output: Tensor) -> None:
        seen = LinearSums.of(normalised.pop(), output.flatten(0, -2))
        sums.w3 = seen if sums.w3 is None else sums.w3 + seen

    stack.callback(blocks[block, 'mlp.ffn_ln'].register_forward_hook(norm).remove)
    stack.callback(blocks[block, 'mlp.w3'].register_forward_hook(reader).remove)


def normalise(h: Tensor, eps: float) -> Tensor:
    """Return LayerNorm of h [T, K] without gain and shift."""
    return nn.functional.layer_norm(h.double(), h.shape[-1:], eps=eps)


def compensate(
    plan: PruningPlan,
    state: Mapping[str, Tensor],
    sums: list[BlockSums],
    *,
    parts: Collection[str] = ('proj', 'w3'),
    ridge: float = RIDGE,
) -> Compensated:
    """Return a pruned state dict with fitted tensors; blocks that lose nothing stay bit for bit.

    'proj' and 'w3': weight and bias of least squared error of the block's output, drawn to the sliced weight by a
    ridge. 'ffn_ln': gain and shift with which each kept neuron comes nearest to what the whole ``ffn_ln`` makes of it;
    it is fitted first. 'w3' absorbs any such gain and shift, so that 'ffn_ln' beside it only moves what the ridge
    draws to; alone, it costs a pass and needs no covariance to be right.

    Args:
        plan: what is kept.
        state: pruned by ``prune_state``; names may have a prefix.
        sums: of ``collect`` for the same plan.
        parts: of ``PARTS``.
        ridge: strength, as a share of the mean variance of an input.

    Raises:
        ConfigError: a part is unknown, or the ridge is not positive.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        wrong = unknown[0] if unknown else 'nothing'
        raise ConfigError(
            f'Expected parts of {", ".join(PARTS)} but got {wrong}.{did_you_mean(wrong, PARTS)} Name what to fit.'
        )
    if not ridge > 0:
        raise ConfigError(f'Expected a ridge above 0 but got {ridge}. Give for example {RIDGE}.')
    made, errors = dict(state), {}
    prefix = prefix_of(state, plan.prefix, 'the pruned state')
    for block, seen in enumerate(sums):
        path = f'{prefix}blocks.{block}.'
        if seen.proj is not None and 'proj' in parts:
            errors[f'blocks.{block}.attn.proj'] = _refit(made, f'{path}attn.proj', seen.proj, ridge)
        if seen.norm is not None and seen.w3 is not None:
            _fit_neurons(made, f'{path}mlp.', seen.norm, seen.w3, parts, ridge, errors, f'blocks.{block}.mlp.w3')
    return Compensated(made, errors)


def _fit_neurons(
    state: dict[str, Tensor],
    path: str,
    norm: NormSums,
    w3: LinearSums,
    parts: Collection[str],
    ridge: float,
    errors: dict[str, tuple[float, float]],
    title: str,
) -> None:
    gain, shift = (state[f'{path}ffn_ln.{name}'] for name in ('weight', 'bias'))
    weight, bias = (state[f'{path}w3.{name}'] for name in ('weight', 'bias'))
    before = w3.scaled(gain, shift).error(weight, bias)
    if 'ffn_ln' in parts:
        fitted_gain, fitted_shift = norm.fit(gain.double())
        state[f'{path}ffn_ln.weight'] = gain = fitted_gain.to(gain)
        state[f'{path}ffn_ln.bias'] = shift = fitted_shift.to(shift)
    scaled = w3.scaled(gain, shift)
    after = _refit(state, f'{path}w3', scaled, ridge)[1] if 'w3' in parts else scaled.error(weight, bias)
    if {'w3', 'ffn_ln'} & set(parts):
        errors[title] = (before, after)


def _refit(state: dict[str, Tensor], path: str, sums: LinearSums, ridge: float) -> tuple[float, float]:
    """Fit a layer in place in the dict; return the errors before and after."""
    weight, bias = state[f'{path}.weight'], state[f'{path}.bias']
    fitted_weight, fitted_bias = sums.fit(weight, ridge)
    state[f'{path}.weight'], state[f'{path}.bias'] = fitted_weight.to(weight), fitted_bias.to(bias)
    return sums.error(weight, bias), sums.error(state[f'{path}.weight'], state[f'{path}.bias'])
