"""Carry out a pruning plan on tensors: slice what belongs to kept heads and neurons, and the way back for heads.

The scale of attention is that of ``head_dim`` and stays, for the width of a head does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.pruning.blocks import ANCHOR, prefix_of
from kdplugin.pruning.plan import PruningPlan
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reading.tensor_source import TensorSource

AXES = {
    'attn.q_proj.weight': ('heads', 0),
    'attn.k_proj.weight': ('heads', 0),
    'attn.v_proj.weight': ('heads', 0),
    'attn.q_proj.bias': ('heads', 0),
    'attn.k_proj.bias': ('heads', 0),
    'attn.v_proj.bias': ('heads', 0),
    'attn.q_bias': ('heads', 0),
    'attn.v_bias': ('heads', 0),
    'attn.proj.weight': ('heads', 1),
    'mlp.w1.weight': ('neurons', 0),
    'mlp.w1.bias': ('neurons', 0),
    'mlp.w2.weight': ('neurons', 0),
    'mlp.w2.bias': ('neurons', 0),
    'mlp.ffn_ln.weight': ('neurons', 0),
    'mlp.ffn_ln.bias': ('neurons', 0),
    'mlp.w3.weight': ('neurons', 1),
}
"""Tensors of a block that are sliced, by which units and along which axis; all others stay whole."""

TABLE = re.compile(r'(?:.*\.)?rope(?:_win|_glb)?\.freqs_(?:cos|sin)')
"""Rotary tables, which a model computes for its own image and windows."""


def projection_plan(plan: PruningPlan, source: Any, target: nn.Module | None = None) -> ProjectionPlan:
    """Return what becomes of each tensor of a pruned backbone, for ``apply_plan`` and ``WeightProjectionHook``.

    Args:
        plan: what is kept.
        source: the teacher, whatever ``open_source`` takes; its names with the plan's prefix or without.
        target: the pruned backbone, whose names, order and shapes then count; by default all tensors of the source's
            backbone.

    Raises:
        CheckpointError: the source is not the teacher of the plan, or the target is not of its size.
    """
    opened = open_source(source)
    prefix = prefix_of(opened, plan.prefix, opened.name)
    _require_depth(plan, opened, prefix)
    if target is None:
        names = [name[len(prefix) :] for name in opened if name.startswith(prefix)]
        entries = [_entry(plan, opened, prefix, name) for name in names]
        title = 'pruned backbone'
    else:
        wanted = {name: tuple(value.shape) for name, value in target.state_dict().items()}
        entries = [_entry_for(plan, opened, prefix, name, shape) for name, shape in wanted.items()]
        title = type(target).__name__
    used = {name for entry in entries for name in entry.sources}
    unused = {
        name: 'belongs to another part' if not name.startswith(prefix) else 'the pruned backbone has no such tensor'
        for name in opened
        if name not in used
    }
    return ProjectionPlan(opened.name, title, tuple(entries), unused=unused, settings={'pruning': dict(plan.about)})


def prune_state(plan: PruningPlan, source: Any) -> dict[str, Tensor]:
    """Return a state dict with the backbone pruned; names, order and all other tensors are those of the source.

    Args:
        plan: what is kept.
        source: the teacher, whatever ``open_source`` takes.

    Raises:
        CheckpointError: the source is not the teacher of the plan.
    """
    opened = open_source(source)
    prefix = prefix_of(opened, plan.prefix, opened.name)
    pruned = apply_plan(projection_plan(plan, opened), opened).tensors
    return {name: pruned[name[len(prefix) :]] if name.startswith(prefix) else opened[name].clone() for name in opened}


def restore_heads(plan: PruningPlan, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a pruned state dict at the teacher's number of heads, pruned ones filled with zeros: the same outputs.

    Columns of zeros in ``proj`` take a head's output away, whatever it attends to. Names, order and all other tensors
    are those of ``state``.

    Args:
        plan: what is kept.
        state: of the pruned backbone, or of a model that has one.

    Raises:
        CheckpointError: neurons are pruned, or the state is not one of this plan.
    """
    if plan.prunes_neurons:
        raise CheckpointError(
            f'Expected a plan that prunes heads alone but block {_first_pruned(plan)} keeps '
            f'{min(plan.neuron_counts)} of {plan.hidden} neurons. ffn_ln normalises over the kept neurons: with zeros '
            'in place of the others its mean and variance would be of all of them, and the outputs would differ. '
            'Export to a layout that knows the size of the FFN, or prune heads only.'
        )
    prefix = prefix_of(state, plan.prefix, 'the pruned state')
    _require_depth(plan, state, prefix)
    return {name: _filled(plan, name, value, prefix) for name, value in state.items()}


def _first_pruned(plan: PruningPlan) -> int:
    return next(block for block, count in enumerate(plan.neuron_counts) if count < plan.hidden)


def _filled(plan: PruningPlan, name: str, value: Tensor, prefix: str) -> Tensor:
    block, unit, axis = _place(name, prefix)
    if unit != 'heads':
        return value.clone()
    rows = plan.rows(block)
    if value.shape[axis] != len(rows):
        raise CheckpointError(
            f'Expected {len(rows)} along axis {axis} of {name}, {plan.head_counts[block]} heads x {plan.head_dim}, but '
            f'got {value.shape[axis]}. Give the weights that were pruned by this plan.'
        )
    shape = list(value.shape)
    shape[axis] = plan.num_heads * plan.head_dim
    return value.new_zeros(shape).index_copy_(axis, torch.tensor(rows, device=value.device), value)


def _place(name: str, prefix: str) -> tuple[int, str, int]:
    """Return the block, the unit and the axis along which a tensor is sliced; the unit is '' where it stays whole."""
    match = re.fullmatch(rf'{re.escape(prefix)}blocks\.(\d+)\.(.+)', name)
    unit, axis = AXES.get(match[2], ('', 0)) if match else ('', 0)
    return (int(match[1]) if match else -1), unit, axis


def _entry(plan: PruningPlan, source: TensorSource, prefix: str, name: str) -> Entry:
    """Return the entry of one tensor, by the source's own names."""
    full, shape = prefix + name, source.shape(prefix + name)
    block, unit, axis = _place(name, '')
    if not unit:
        return Entry(name, shape, 'renamed' if prefix else 'exact', (Piece(full),), reason='not sliced')
    kept, total = _rows(plan, block, unit)
    if shape[axis] != total:
        raise CheckpointError(
            f'Expected {total} along axis {axis} of {full} in {source.name} but got {shape[axis]}. Give the teacher '
            'that the plan was made for.'
        )
    counts = plan.head_counts if unit == 'heads' else plan.neuron_counts
    reason = f'{counts[block]} of {plan.num_heads if unit == "heads" else plan.hidden} {unit}'
    if len(kept) == total:
        return Entry(name, shape, 'renamed' if prefix else 'exact', (Piece(full),), reason=reason)
    step = Step('index', {'dim': axis, 'indices': list(kept)})
    sliced = tuple(len(kept) if dim == axis else length for dim, length in enumerate(shape))
    return Entry(name, sliced, 'projected', (Piece(full, (step,)),), reason=reason)


def _entry_for(plan: PruningPlan, source: TensorSource, prefix: str, name: str, shape: tuple[int, ...]) -> Entry:
    """Return the entry of one tensor of a target, or say why there is none."""
    table = TABLE.fullmatch(name)
    if prefix + name not in source:
        if table:
            return Entry(name, shape, 'random', score=0.0, margin=0.0, reason='the model computes it')
        raise CheckpointError(
            f'Expected {prefix}{name} in {source.name} but it is missing.{did_you_mean(prefix + name, source)} '
            'Point target at the backbone that the plan is for.'
        )
    entry = _entry(plan, source, prefix, name)
    if entry.shape == shape:
        return entry
    if table:
        reason = f'of another grid ({entry.shape[0]} tokens in the source): the model computes it'
        return Entry(name, shape, 'random', score=0.0, margin=0.0, reason=reason)
    raise CheckpointError(
        f'Expected {name} of shape {entry.shape}, by the plan, but the model has {shape}. Build the model with the '
        "plan's numbers of heads and neurons."
    )


def _rows(plan: PruningPlan, block: int, unit: str) -> tuple[Sequence[int], int]:
    if unit == 'heads':
        return plan.rows(block), plan.num_heads * plan.head_dim
    return plan.neurons[block], plan.hidden


def _require_depth(plan: PruningPlan, names: Mapping[str, Any], prefix: str) -> None:
    blocks = {int(match['block']) for name in names if (match := ANCHOR.fullmatch(name)) and match['prefix'] == prefix}
    if blocks != set(range(plan.depth)):
        raise CheckpointError(
            f'Expected the {plan.depth} blocks of the plan but got {len(blocks)}. Give the weights of its teacher.'
        )
