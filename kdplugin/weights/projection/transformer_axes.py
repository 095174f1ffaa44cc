"""Axis groups of transformer blocks: the residual stream, the heads of each attention, the hidden units of each MLP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdplugin.weights.naming import tokens
from kdplugin.weights.projection.axes import Axes, Widths
from kdplugin.weights.projection.head_counts import HEAD_TABLES, HEAD_WIDE, HeadDim, Heads, head_units
from kdplugin.weights.projection.layer_slots import Layer
from kdplugin.weights.projection.transformer_blocks import Block, Sublayer


def place_blocks(
    axes: Axes,
    blocks: Sequence[Block],
    *,
    heads: Heads = None,
    head_dim: HeadDim = None,
    rotary: str = 'both',
    rotary_widths: tuple[int, int] | None = None,
) -> None:
    """Put the axes of transformer blocks into groups.

    Args:
        heads, head_dim: see ``head_units``.
        rotary: see ``AxisGroup``.
        rotary_widths: widths of rotary tables before and after, if there are any.
    """
    for block in blocks:
        if block.widths[0] != block.widths[1]:
            axes.group(axes.named('stream', block.widths), 'residual', block.widths)
        for sub in block.sublayers:
            if sub.kind == 'attention':
                _heads(axes, sub, heads, head_dim, rotary, rotary_widths)
            else:
                _hidden(axes, sub)
            _streams(axes, block, sub)
        for layer in [*block.norms, *block.scales]:
            if block.widths[0] != block.widths[1]:
                axes.put_vector(layer, axes.named('stream', block.widths))


def _streams(axes: Axes, block: Block, sub: Sublayer) -> None:
    for layer in [*sub.readers, *sub.context]:
        if layer.inputs[0] != layer.inputs[1]:
            axes.put_reader(layer, axes.group(axes.named('stream', layer.inputs), 'residual', layer.inputs))
    for layer in sub.writers:
        if block.widths[0] != block.widths[1]:
            axes.put_writer(layer, axes.named('stream', block.widths))


def _heads(
    axes: Axes,
    sub: Sublayer,
    heads: Heads,
    head_dim: HeadDim,
    rotary: str,
    rotary_widths: tuple[int, int] | None,
) -> None:
    projections = {layer.part: layer for layer in [*sub.readers, *sub.context]}
    asked, widths = projections['q'].outputs, projections['k'].outputs
    if all(layer.outputs[0] == layer.outputs[1] for layer in projections.values()):
        return
    inside = [*sub.inner, *sub.tables]
    units = head_units(sub.path, asked, inside, heads=heads, head_dim=head_dim, rotary=rotary_widths)
    queries = _queries(asked, widths, units)
    if queries is None or projections.get('v', projections['k']).outputs != widths:
        _truncated(axes, sub, projections)
        return
    normed = any(layer.is_norm and {'q', 'k'} & {*_last_words(layer)} for layer in inside)
    group = axes.group(
        f'{sub.path}.heads', 'heads', widths, unit=units[0], target_unit=units[1], queries=queries,
        rotary='both' if normed and rotary == 'none' else rotary,
    )  # fmt: skip
    for part, layer in projections.items():
        axes.put_writer(layer, group, 'out' if part == 'v' else part or 'q')
    for layer in sub.writers:
        axes.put(layer.weight, 1, group, 'in' if queries == (1, 1) else 'o')
    for layer in inside:
        _put_inside(axes, layer, group, asked[0], units[0])


def _queries(asked: Widths, widths: Widths, units: tuple[int, int]) -> tuple[int, int] | None:
    """Return the query heads for each key head before and after, or None where these are no whole heads.

    Where queries keep their heads and keys do not, the keys of a head would not be those that it asks: None too.
    """
    if any(q % k or k % unit for q, k, unit in zip(asked, widths, units, strict=True)):
        return None
    heads = [width // unit for width, unit in zip(asked, units, strict=True)]
    if heads[0] == heads[1] and widths[0] // units[0] != widths[1] // units[1]:
        return None
    return asked[0] // widths[0], asked[1] // widths[1]


def _truncated(axes: Axes, sub: Sublayer, projections: Mapping[str | None, Layer]) -> None:
    """Truncate q, k and v of widths that do not belong together, and say so."""
    kept = {name: layer.outputs for name, layer in projections.items()}
    axes.notes.append(f'{sub.path}: q, k and v have other widths {kept}; heads are truncated')
    for layer in projections.values():
        group = axes.group(axes.named(sub.path, layer.outputs), 'hidden', layer.outputs, truncate=True)
        axes.put_writer(layer, group)
    for layer in sub.writers:
        axes.put_reader(layer, axes.group(axes.named(sub.path, layer.inputs), 'hidden', layer.inputs, truncate=True))


def _last_words(layer: Layer) -> tuple[str, ...]:
    return tokens(layer.path.rpartition('.')[2])


def _put_inside(axes: Axes, layer: Layer, group: str, width: int, unit: int) -> None:
    """Put norms of q and k, norms over all heads and tables of an attention module into the group of its heads."""
    last = layer.weight.name.rpartition('.')[2]
    score = next((word for word in _last_words(layer) if word in ('q', 'k')), None)
    for slot in layer.tensors.values():
        if last in HEAD_TABLES or 'relative_attention_bias' in layer.path:
            axes.put(slot, 0 if last == 'logit_scale' else len(slot.old) - 1, group, 'head')
        elif last in HEAD_WIDE or (layer.is_vector and max(slot.old) == unit != width):
            axes.put(slot, len(slot.old) - 1, group, 'dim')
        elif layer.is_vector and score:
            axes.put(slot, slot.old.index(max(slot.old)), group, score)
    if layer.is_vector and not score and max(layer.weight.old) == width:
        axes.put_vector(layer, group)


def _hidden(axes: Axes, sub: Sublayer) -> None:
    """Put the hidden units of an MLP, of a gated one too, into a group of their own."""
    widths = sub.writers[0].inputs
    if widths[0] == widths[1]:
        return
    path = sub.path if sub.path.rpartition('.')[2].isdigit() is False else f'{sub.path}.mlp'
    group = axes.group(f'{path}.hidden', 'hidden', widths)
    for layer in sub.readers:
        times = layer.outputs[0] // widths[0]
        if times > 1 and layer.outputs == (times * widths[0], times * widths[1]):  # gate and value in one layer
            for role in layer.tensors.keys() & {'weight', 'bias'}:
                axes.put_view(layer.tensors[role], 0, group, 'out', (times, widths[0]), 1)
        axes.put_writer(layer, group)
    for layer in sub.writers:
        axes.put_reader(layer, group)
    for layer in sub.inner:
        if layer.is_vector:
            axes.put_vector(layer, group)
        else:
            axes.put_writer(layer, group)
