"""Axis groups outside of transformer blocks: channels that are added or chained share a group.

Channels that enter and leave a block, and those outside of blocks, are one group for each pair of widths: residual
stages add what their blocks write, and what is joined without need is still consistent. Channels inside a block, or
in a plain chain of layers, are private to their link.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise, permutations

from kdplugin.weights.projection.axes import Axes
from kdplugin.weights.projection.layer_slots import Layer

Widths = tuple[int, int]

BESIDE = {'down', 'skip', 'identity'}
GATES = {'se', 'squeeze', 'gate', 'attn'}
MAX_REORDERED = 4
"""Blocks with more layers than this keep the order they come in."""
NUMBERED = re.compile(r'\d+|(?:fc|linear|lin|layer|dense|conv|proj)_?\d+')


def place_matrices(axes: Axes, layers: Sequence[Layer]) -> None:
    """Put what matrices outside of transformer blocks read and write into groups, all but what is a view of a group.

    Args:
        layers: those outside, in order.
    """
    matrices = [layer for layer in layers if layer.is_matrix]
    blocks = list_elements(matrices)
    for path, members in blocks.items():
        _block(axes, path, members)
    inside = {id(layer) for members in blocks.values() for layer in members}
    plain = [layer for layer in matrices if id(layer) not in inside]
    convolutions = [layer for layer in plain if is_convolution(layer)]
    if not blocks and len(convolutions) > 2 and all(follows(a, b) for a, b in pairwise(convolutions)):
        _chain(axes, convolutions, 'chain')
    for parent, numbered in groupby(plain, key=_list_of):
        listed = list(numbered)
        if parent and len(listed) > 1 and all(follows(a, b) for a, b in pairwise(listed)):
            _chain(axes, listed, parent)
    first = min((layer.order for members in blocks.values() for layer in members), default=-1)
    for layer in plain:
        stem = is_convolution(layer) and layer.order < first
        _place(axes, layer, convolutional=stem)


def is_convolution(layer: Layer) -> bool:
    """Tell whether a layer has a weight [O, I, H, W], or [O, I, T, H, W]."""
    return layer.is_matrix and len(layer.weight.old) >= 4


def is_depthwise(layer: Layer) -> bool:
    """Tell whether each channel has a kernel of its own."""
    return is_convolution(layer) and layer.weight.old[1] == 1 < layer.weight.old[0]


def follows(first: Layer, second: Layer) -> bool:
    """Tell whether the second layer can read what the first wrote."""
    return (second.outputs if is_depthwise(second) else second.inputs) == first.outputs


def list_elements(matrices: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Return the blocks: elements of module lists of which most hold two matrices or more, with these, by path.

    The innermost such element counts. Lists of single layers, with a gate among them, are parts of a block.
    """
    held = Counter(path for layer in matrices for path in _elements(f'{layer.path}.weight'))
    sizes: dict[str, list[int]] = {}
    for path, count in held.items():
        sizes.setdefault(path.rpartition('.')[0], []).append(count)
    stacks = {path for path, counts in sizes.items() if 2 * sum(count > 1 for count in counts) > len(counts)}
    blocks: dict[str, list[Layer]] = {}
    for layer in matrices:
        around = [path for path in _elements(layer.path) if path.rpartition('.')[0] in stacks]
        if around:
            blocks.setdefault(around[0], []).append(layer)
    return {path: members for path, members in blocks.items() if len(members) > 1}


def _elements(path: str) -> Iterator[str]:
    """Yield the list elements around a module, innermost first."""
    while '.' in path:
        path = path.rpartition('.')[0]
        if path.rpartition('.')[2].isdigit():
            yield path


def _list_of(layer: Layer) -> str:
    """Return the module whose numbered children a layer is one of, or ''."""
    parent, _, last = layer.path.rpartition('.')
    return parent if NUMBERED.fullmatch(last) else ''


def shared(axes: Axes, widths: Widths, *, convolutional: bool) -> str:
    """Return the group that these widths share outside of links: the transformer's stream, or channels."""
    stream = axes.known('stream', widths)
    if stream and not convolutional:
        return stream
    return axes.group(axes.named('channels', widths), 'hidden', widths)


def _place(axes: Axes, layer: Layer, *, convolutional: bool) -> None:
    """Put what is open of a layer into shared groups; a convolution reads channels where there are such."""
    if is_pooler(axes, layer):
        axes.put_writer(layer, axes.group(f'{layer.path}.out', 'hidden', layer.outputs))
    for slot, dim in axes.open_axes(layer):
        widths, reads = slot.change(dim), slot is layer.weight and dim == 1
        known = axes.known('channels', widths) is not None and is_convolution(layer) and reads
        if not _is_view(axes, layer, 1 if reads else 0):
            axes.put(slot, dim, shared(axes, widths, convolutional=convolutional or known), 'in' if reads else 'out')


def is_pooler(axes: Axes, layer: Layer) -> bool:
    """Tell whether a linear layer reads a transformer's stream at its end and writes what nothing else reads."""
    if axes.known('stream', layer.outputs) is None or layer.inputs != layer.outputs or len(layer.weight.old) != 2:
        return False
    later = [one for one in axes.layers if one.order > layer.order and one.is_matrix]
    return not any(layer.outputs in (one.inputs, one.outputs) for one in later)


def _is_view(axes: Axes, layer: Layer, dim: int) -> bool:
    """Tell whether an axis holds several units of a group's width, rather than channels that somebody writes or reads.

    What a linear layer reads behind convolutions, or writes to modulate a stream, and maps that are concatenated.
    """
    widths = layer.weight.change(dim)
    if dim == 1 and not is_depthwise(layer):
        before = [one for one in axes.layers[: layer.order] if one.is_matrix and one.outputs == widths]
        written = any(not _is_private(axes, one) for one in before)
        return not written and (len(layer.weight.old) == 2 or unit_of(axes, layer, widths) is not None)
    if len(layer.weight.old) > 2:
        return False
    pairs = [(d.source_width, d.target_width) for name, d in axes.drafts.items() if name.startswith('stream')]
    several = [
        old for old, new in pairs if widths[0] > old and widths[0] % old == 0 and widths[0] * new == widths[1] * old
    ]
    return bool(several) and not any(one.is_matrix and one.inputs == widths for one in axes.layers)


def _is_private(axes: Axes, layer: Layer) -> bool:
    """Tell whether what a layer writes is read inside its own block alone."""
    placed = axes.places.get((layer.weight.entry, layer.weight.piece, 0))
    shared_groups = [axes.known(kind, layer.outputs) for kind in ('stream', 'channels')]
    return placed is not None and placed.group not in shared_groups


def unit_of(axes: Axes, layer: Layer, widths: tuple[int, int]) -> str | None:
    """Return the group that an axis holds several times: that of the nearest layer before it, if one fits."""
    for writer in reversed(axes.layers[: layer.order]):
        placed = axes.places.get((writer.weight.entry, writer.weight.piece, 0))
        if writer.is_matrix and placed and not placed.inner:
            draft = axes.drafts[placed.group]
            times = widths[0] // draft.source_width
            if times > 1 and (times * draft.source_width, times * draft.target_width) == widths:
                return placed.group
    return None


def _block(axes: Axes, path: str, members: Sequence[Layer]) -> None:
    convolutional = any(map(is_convolution, members))
    main = in_running_order(path, [layer for layer in members if not BESIDE & {*layer.words}] or list(members))
    first = main[0].outputs if is_depthwise(main[0]) else main[0].inputs
    links = [layer.outputs for layer in main[:-1]]
    returns = len(list(groupby(links))) > len(set(links))
    chained = _chains(main)
    if chained and not returns and not any(_is_gate(path, layer) for layer in main):
        if is_depthwise(main[0]) and first[0] != first[1]:
            axes.put_writer(main[0], shared(axes, first, convolutional=convolutional))
        _chain(axes, main, path)
    else:
        if not chained and any(axes.open_axes(layer) for layer in members):
            axes.notes.append(f'{path}: its layers are no plain chain; channels of equal widths share a group')
        for layer in main:
            for slot, dim in axes.open_axes(layer):
                widths, reads = slot.change(dim), slot is layer.weight and dim == 1
                if widths not in (first, main[-1].outputs):
                    name = axes.group(axes.named(path, widths), 'hidden', widths)
                    axes.put(slot, dim, name, 'in' if reads else 'out')
    for layer in members:
        _place(axes, layer, convolutional=convolutional)


def in_running_order(path: str, layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers of a block as they run, where the order they come in cannot be it, as in alphabetical files.

    The order in which each reads what the one before it wrote, gates left aside, and a depthwise convolution stands
    between others: 'depthwise', 'expand', 'linear' run as 'expand', 'depthwise', 'linear'. Without one: as they come.
    """
    gates = [layer for layer in layers if _is_gate(path, layer)]
    others = [layer for layer in layers if not _is_gate(path, layer)]
    if _chains(others) or len(others) > MAX_REORDERED:
        return list(layers)
    for order in permutations(others):
        if _chains(order) and not is_depthwise(order[0]) and not is_depthwise(order[-1]):
            return [*order[:-1], *gates, order[-1]]
    return list(layers)


def _chains(layers: Sequence[Layer]) -> bool:
    return all(follows(a, b) for a, b in pairwise(layers))


def _is_gate(path: str, layer: Layer) -> bool:
    return bool(GATES & {*re.split(r'[._]', layer.path.removeprefix(path))})


def _chain(axes: Axes, layers: Sequence[Layer], path: str) -> None:
    """Give each link between neighbours a group of its own; a depthwise convolution continues its link."""
    for number, (first, second) in enumerate(pairwise(layers)):
        widths = first.outputs
        if widths[0] == widths[1]:
            continue
        placed = axes.places.get((first.weight.entry, first.weight.piece, 0))
        group = placed.group if placed else axes.group(f'{path}.inner{number}', 'hidden', widths)
        axes.put_writer(first, group)
        if is_depthwise(second):
            axes.put_writer(second, group)
        else:
            axes.put_reader(second, group)
