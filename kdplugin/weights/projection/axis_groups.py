"""From a plan that says which tensors belong together to one that also says how their widths change.

Axes that a network adds, chains or multiplies elementwise share a basis: ``with_projection`` finds these groups from
names, shapes and order, for pre-norm and post-norm transformers (ViT, Swin, EVA, DETR, DiT) and convolutional networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.layouts.views import viewed
from kdplugin.weights.plan import Entry, ProjectionPlan, Step
from kdplugin.weights.plan_shapes import MetaSource, check_plan
from kdplugin.weights.projection.axes import Axes
from kdplugin.weights.projection.conv_axes import place_matrices
from kdplugin.weights.projection.folding import Folds, folded_piece
from kdplugin.weights.projection.head_counts import HeadDim, Heads
from kdplugin.weights.projection.layer_slots import Slot, read_layers
from kdplugin.weights.projection.misfits import without_misfits
from kdplugin.weights.projection.other_axes import place_merging, place_unknown, place_vectors, place_views
from kdplugin.weights.projection.rotary import rotary_custom, rotary_widths
from kdplugin.weights.projection.stream_bases import settle
from kdplugin.weights.projection.transformer_axes import place_blocks
from kdplugin.weights.projection.transformer_blocks import find_blocks
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.units import is_definition_order

METHODS = ('truncate', 'average', 'svd')
WIDER = ('repeat', 'zero')


def with_projection(
    plan: ProjectionPlan,
    source: object,
    *,
    method: str = 'svd',
    wider: str = 'repeat',
    heads: Heads = None,
    head_dim: HeadDim = None,
    rotary: str | None = None,
    pre_norm: bool | None = None,
) -> ProjectionPlan:
    """Return the plan with axis groups and the steps that project the axes in them; reads shapes alone.

    Args:
        plan: entries whose pieces have the target's number of axes, but other widths.
        source: whatever ``open_source`` takes.
        method: 'truncate', 'average' or 'svd' for axes that get narrower; see ``kdplugin.weights.projection.bases``.
        wider: 'repeat' or 'zero' for axes that get wider.
        heads, head_dim: where tensors do not tell it: {'source': 16, 'target': 8}, or the source's count alone if a
            head keeps its width; or that width, or (source's, target's).
        rotary: how rotary embeddings pair the values of a head, where its width changes ('interleaved', 'halves',
            'both' if it is not known); 'none' lets q and k rotate; None finds out, see ``rotary_custom``.
        pre_norm: whether blocks normalise what they read; None finds out by order and names.

    Raises:
        ConfigError: an option is unknown, or heads cannot be counted.
        CheckpointError: the plan does not fit the source, or has projections already.
    """
    if method not in METHODS or wider not in WIDER:
        raise ConfigError(
            f'Expected a method of {", ".join(METHODS)} and wider of {", ".join(WIDER)} but got {method!r} and '
            f'{wider!r}. Choose one of these.'
        )
    if plan.groups:
        raise CheckpointError('Expected a plan without axis groups but got one that has them. Make it anew.')
    meta = MetaSource(viewed(open_source(source), plan))
    plan = without_misfits(plan, read_layers(plan, meta)[1], meta)
    split, layers = read_layers(plan, meta)
    if not any(slot.changing for layer in layers for slot in layer.tensors.values()):
        return plan
    plan = split
    ordered = is_definition_order(entry.target for entry in plan.entries)
    axes, blocks = Axes(layers), find_blocks(layers, ordered=ordered)
    placed = {id(layer) for block in blocks for layer in block.layers}
    outside = [layer for layer in layers if id(layer) not in placed]
    rotary = rotary or rotary_custom([*meta, *(entry.target for entry in plan.entries)], layers, blocks)
    tables = rotary_widths(plan, meta)
    place_blocks(axes, blocks, heads=heads, head_dim=head_dim, rotary=rotary, rotary_widths=tables)
    place_merging(axes, blocks, outside)
    place_matrices(axes, outside)
    place_vectors(axes, layers)
    place_views(axes, outside)
    place_unknown(axes, layers)
    methods, folds = settle(plan, axes, blocks, outside, method=method, wider=wider, pre_norm=pre_norm)
    slots = {(slot.entry, slot.piece): slot for layer in layers for slot in layer.tensors.values()}
    entries = tuple(_projected(entry, index, slots, axes, folds) for index, entry in enumerate(plan.entries))
    used = {place.group for place in axes.places.values()}
    groups = {name: draft.group(methods[name]) for name, draft in axes.drafts.items() if name in used}
    settings = {**plan.settings, 'projection': {'method': method, 'wider': wider, 'rotary': rotary}}
    notes = (*plan.notes, *_condensed([*axes.notes, *folds.notes]))
    plan = replace(plan, entries=entries, groups=groups, settings=settings, notes=notes)
    check_plan(plan, meta)
    return plan


def _condensed(notes: Sequence[str]) -> list[str]:
    """Return one note for those that differ in numbers alone, as of repeated layers."""
    alike: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        alike.setdefault(re.sub(r'\d+', '#', note), []).append(note)
    return [same[0] + (f' (and {len(same) - 1} more of the kind)' if len(same) > 1 else '') for same in alike.values()]


def _projected(entry: Entry, index: int, slots: Mapping[tuple[int, int], Slot], axes: Axes, folds: Folds) -> Entry:
    """Return an entry with the folds and projections of its pieces."""
    pieces = []
    for number, piece in enumerate(entry.pieces):
        slot = slots[index, number]
        folded = folded_piece(piece, (index, number), folds, slot.new)
        steps = [] if (index, number) in folds.constant else _projections(slot, axes)
        pieces.append(replace(folded, steps=(*folded.steps, *steps)))
    if tuple(pieces) == entry.pieces:
        return entry
    return replace(entry, pieces=tuple(pieces), kind='projected')


def _projections(slot: Slot, axes: Axes) -> list[Step]:
    """Return the steps that project all axes of a slot, in one run; axes of several units are unfolded for it."""
    places = {dim: axes.places[slot.entry, slot.piece, dim] for dim in slot.changing}
    view: list[int] = []
    steps = []
    for dim, size in enumerate(slot.old):
        place = places.get(dim)
        inner = place.inner if place and place.inner else (size,)
        if place:
            args = {'dim': len(view) + (place.at if place.inner else 0), 'group': place.group, 'side': place.side}
            steps.append(Step('project', args))
        view += inner
    if len(view) == len(slot.old):
        return steps
    assert prod(view) == prod(slot.old)  # noqa: S101
    unfold, fold = Step('reshape', {'shape': view}), Step('reshape', {'shape': list(slot.new)})
    return [unfold, *steps, fold]
