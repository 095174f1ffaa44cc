"""Axis groups of what is left: norms and tables outside of blocks, axes that hold a width several times, the rest."""

from __future__ import annotations

from collections.abc import Sequence

from kdplugin.weights.projection.axes import VECTOR_SIDES, Axes
from kdplugin.weights.projection.conv_axes import is_convolution, shared, unit_of
from kdplugin.weights.projection.layer_slots import Layer, Slot
from kdplugin.weights.projection.transformer_blocks import Block

MODULATION = {'modulation', 'shift', 'adaln', 'ada', 'film'}


def is_modulation(layer: Layer) -> bool:
    """Tell whether a layer gives gains and shifts that depend on the input, as in DiT."""
    return bool(MODULATION & {*layer.words})


def place_vectors(axes: Axes, layers: Sequence[Layer]) -> None:
    """Put norms, scales and tables into the group of what they work on.

    A norm belongs to the matrix of the same number or module (conv1 and bn1), else to the one before it.
    """
    writers = [layer for layer in layers if layer.is_matrix]
    for layer in layers:
        for slot, dim in axes.open_axes(layer):
            if layer.is_vector:
                group = _group_of(axes, layer, slot.change(dim), writers)
                if group is not None:
                    axes.put_vector(layer, group)
            elif layer.is_table and dim == len(slot.old) - 1:
                axes.put_table(layer, shared(axes, slot.change(dim), convolutional=False))


def _group_of(axes: Axes, layer: Layer, widths: tuple[int, int], writers: Sequence[Layer]) -> str | None:
    fitting = [one for one in writers if one.outputs == widths]
    near = [one for one in fitting if _shares_place(one.path, layer.path)]
    near = near or [one for one in fitting if one.order < layer.order]
    stream = axes.known('stream', widths)
    if near and (is_convolution(near[-1]) or stream is None):
        placed = axes.places.get((near[-1].weight.entry, near[-1].weight.piece, 0))
        if placed and axes.drafts[placed.group].source_width == widths[0]:
            return placed.group
    return stream or axes.known('channels', widths)


def _shares_place(matrix: str, norm: str) -> bool:
    """Tell whether two names differ in one word, with the same number: conv1 and bn1, convs.0.conv and convs.0.bn."""
    one, other = matrix.split('.'), norm.split('.')
    numbers = [''.join(filter(str.isdigit, words[-1])) for words in (one, other)]
    return one[:-1] == other[:-1] and numbers[0] == numbers[1] and not one[-1].isdigit()


def place_merging(axes: Axes, blocks: Sequence[Block], layers: Sequence[Layer]) -> None:
    """Put patch merging into streams: it reads four neighbours of the stage before it and writes to the next.

    The neighbours come one after the other, [4, W]; in mmdet and mmseg, which unfold, each channel's four positions
    come together, [W, 4].
    """
    for layer in layers:
        before = [block for block in blocks if block.sublayers[0].order < layer.order]
        if not (layer.is_matrix and 'down' in layer.words and before):
            continue
        old, new = before[-1].widths
        if layer.inputs != (4 * old, 4 * new) or old == new:
            continue
        parent = layer.path.rpartition('.')[0]
        unfolds = '.stages.' in f'.{layer.path}'
        axes.put_writer(layer, axes.group(axes.named('stream', layer.outputs), 'residual', layer.outputs))
        inner, at = ((old, 4), 0) if unfolds else ((4, old), 1)
        norms = [one for one in layers if one.is_norm and one.path.rpartition('.')[0] == parent]
        for one, slot, dim in [(layer, layer.weight, 1), *((n, s, 0) for n in norms for s in n.tensors.values())]:
            side = 'in' if one is layer else VECTOR_SIDES[_role(one, slot)]
            axes.put_view(slot, dim, axes.named('stream', (old, new)), side, inner, at)


def _role(layer: Layer, slot: Slot) -> str:
    return next(role for role, one in layer.tensors.items() if one is slot)


def place_views(axes: Axes, layers: Sequence[Layer]) -> None:
    """Put axes that hold a group's width several times into it.

    Modulation keeps whole copies one after the other, [m, W], and so do maps that are concatenated; the first linear
    layer behind convolutions the positions of each channel, [W, m].
    """
    for layer in layers:
        for slot, dim in axes.open_axes(layer):
            name = unit_of(axes, layer, slot.change(dim))
            if name is None:
                continue
            width = axes.drafts[name].source_width
            times = slot.old[dim] // width
            reads = layer.is_matrix and slot is layer.weight and dim == 1
            flat = reads and not is_convolution(layer) and not name.startswith('stream')
            if reads and is_convolution(layer):
                axes.notes.append(f'{layer.path} is taken to read {times} maps of {width} channels, concatenated')
            inner, at = ((width, times), 0) if flat else ((times, width), 1)
            axes.put_view(slot, dim, name, 'in' if reads else 'out', inner, at)


def place_unknown(axes: Axes, layers: Sequence[Layer]) -> None:
    """Truncate the axes that nothing tells anything about, each in a group of its own, and say so."""
    for layer in layers:
        for slot, dim in axes.open_axes(layer):
            widths = slot.change(dim)
            name = axes.group(f'{slot.name}.{dim}', 'hidden', widths, truncate=True)
            axes.put(slot, dim, name, 'in' if layer.is_matrix and dim == 1 else 'out')
            axes.notes.append(f'{slot.name}: axis {dim} ({widths[0]} to {widths[1]}) could not be traced; truncated')
