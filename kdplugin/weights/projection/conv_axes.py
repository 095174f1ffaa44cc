"""Axis groups outside of transformer blocks: channels that are added or chained share a group.

Channels that enter and leave a block, and those outside of blocks, are one group for each pair of widths: residual
stages add what their blocks write, and what is joined without need is still consistent. Channels inside a block, or
in a plain chain of layers, are private to their link.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from kdplugin.weights.projection.axes import Axes
from kdplugin.weights.projection.layer_slots import Layer

Widths = tuple[int, int]

BESIDE = {'down', 'skip', 'identity'}
GATES = {'se', 'squeeze', 'gate', 'attn'}
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
    stream, channels = f'stream.{widths[0]}', f'channels.{widths[0]}'
    draft = axes.drafts.get(stream)
    if draft and (draft.source_width, draft.target_width) == widths and not convolutional:
        return stream
    return axes.group(channels, 'hidden', widths)


def _place(axes: Axes, layer: Layer, *, convolutional: bool) -> None:
    """Put what is open of a layer into shared groups; a convolution reads channels where there are such."""
    if is_pooler(axes, layer):
        axes.put_writer(layer, axes.group(f'{layer.path}.out', 'hidden', layer.outputs))
    for slot, dim in axes.open_axes(layer):
        widths, reads = slot.change(dim), slot is layer.weight and dim == 1
        known = f'channels.{widths[0]}' in axes.drafts and is_convolution(layer) and reads
        if not _is_view(axes, layer, 1 if reads else 0):
            axes.put(slot, dim, shared(axes, widths, convolutional=convolutional or known), 'in' if reads else 'out')


def is_pooler(axes: Axes, layer: Layer) -> bool:
    """Tell whether a linear layer reads a transformer's stream at its end and writes what nothing else reads."""
    draft = axes.drafts.get(f'stream.{layer.outputs[0]}')
    if draft is None or layer.inputs != layer.outputs or len(layer.weight.old) != 2:
        return False
    later = [one for one in axes.layers if one.order > layer.order and one.is_matrix]
    return not any(layer.outputs in (one.inputs, one.outputs) for one in later)


def _is_view(axes: Axes, layer: Layer, dim: int) -> bool:
    """Tell whether an axis holds several units of a group's width, rather than channels that somebody writes or reads.

    What a linear layer reads behind convolutions, or what it writes to modulate a stream.
    """
    widths = layer.weight.change(dim)
    if len(layer.weight.old) > 2:
        return False
    if dim == 1:
        return not any(one.is_matrix and one.outputs == widths for one in axes.layers[: layer.order])
    pairs = [(d.source_width, d.target_width) for name, d in axes.drafts.items() if name.startswith('stream')]
    several = [
        old for old, new in pairs if widths[0] > old and widths[0] % old == 0 and widths[0] * new == widths[1] * old
    ]
    return bool(several) and not any(one.is_matrix and one.inputs == widths for one in axes.layers)


def _block(axes: Axes, path: str, members: Sequence[Layer]) -> None:
    convolutional = any(map(is_convolution, members))
    main = [layer for layer in members if not BESIDE & {*layer.words}] or list(members)
    first = main[0].outputs if is_depthwise(main[0]) else main[0].inputs
    links = [layer.outputs for layer in main[:-1]]
    returns = len(list(groupby(links))) > len(set(links))
    words = {word for layer in main for word in re.split(r'[._]', layer.path.removeprefix(path))}
    chained = all(follows(a, b) for a, b in pairwise(main))
    if chained and not returns and not GATES & words:
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
                    name = axes.group(f'{path}.{widths[0]}', 'hidden', widths)
                    axes.put(slot, dim, name, 'in' if reads else 'out')
    for layer in members:
        _place(axes, layer, convolutional=convolutional)


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
