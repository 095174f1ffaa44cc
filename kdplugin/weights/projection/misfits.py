"""What no projection can bridge: other kernels, other numbers of positions, other classes. Refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdplugin.weights.naming import split_leaf, tokens
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.plan_shapes import MetaSource
from kdplugin.weights.projection.layer_slots import Layer, Slot

OUTPUTS, LAST_NAMES = {'cls', 'seg', 'label', 'labels'}, {'fc', 'head'}
"""Words and names of a network's last layer, whose rows are classes or the like: none stands for another."""


def without_misfits(plan: ProjectionPlan, layers: Sequence[Layer], source: MetaSource) -> ProjectionPlan:
    """Return the plan with entries refused that differ from their source in more than the width of channels."""
    reasons: dict[int, str] = {}
    for layer in layers:
        ends = is_output(layer, layers, plan)
        for slot in layer.tensors.values():
            reason = _misfit(layer, slot, source)
            if ends and 0 in slot.changing:
                reason = f'{slot.old[0]} outputs for {slot.new[0]}: none stands for another'
            if reason:
                reasons[slot.entry] = reason
    entries = [
        replace(e, kind='refused', pieces=(), join=None, reason=reasons[i], alternatives=e.sources)
        if i in reasons
        else e
        for i, e in enumerate(plan.entries)
    ]
    return replace(plan, entries=tuple(entries))


def _misfit(layer: Layer, slot: Slot, source: MetaSource) -> str:
    if slot.changing and slot.source is not None and not source.dtype(slot.source).is_floating_point:
        return f'integers of shape {slot.old} for {slot.new}'
    if layer.is_matrix and any(dim > 1 for dim in slot.changing):
        return f'a kernel of {slot.old[2:]} for {slot.new[2:]}'
    if layer.is_table and any(dim < len(slot.old) - 1 for dim in slot.changing):
        return f'a table of {slot.old[:-1]} for {slot.new[:-1]}: resize it first'
    return ''


def is_output(layer: Layer, layers: Sequence[Layer], plan: ProjectionPlan) -> bool:
    """Tell whether a layer ends the network: it is called so, is the last of its list, and nothing reads it."""
    if not layer.is_matrix or layer.outputs[0] == layer.outputs[1]:
        return False
    words = [word for word in layer.path.split('.') if not word.isdigit()]
    if not words or not (OUTPUTS & {*tokens(words[-1])} or words[-1] in LAST_NAMES):
        return False
    parent, _, last = layer.path.rpartition('.')
    siblings = [split_leaf(entry.target)[0] for entry in plan.entries] if last.isdigit() else []
    numbers = [path.rpartition('.')[2] for path in siblings if path.rpartition('.')[0] == parent]
    if any(number.isdigit() and int(number) > int(last) for number in numbers):
        return False
    return not any(one.is_matrix and one.order > layer.order and one.inputs == layer.outputs for one in layers)
