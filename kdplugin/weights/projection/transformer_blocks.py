"""Transformer blocks among the layers of a plan: their attention, MLPs, norms and scales, and how they are wired.

By names of modules where these say something ('q_proj', 'norm1', 'mlp.fc2'), by widths and order otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kdplugin.weights.naming import tokens
from kdplugin.weights.projection.layer_slots import Layer

CROSS = {'cross'}
WRITER = {'proj', 'fc'}
BEFORE = {'before', 'pre', 'input'}


@dataclass
class Sublayer:
    """Attention or MLP: what it reads from the stream, what it keeps inside and what it writes back.

    Args:
        kind: 'attention' or 'mlp'.
        readers: layers that read the stream: q, k, v, or the MLP's first layers.
        writers: layers that write to it.
        context: k and v of cross-attention, which read another stream.
        inner: norms and convolutions by channel between readers and writers.
        tables: by name, what is indexed by head or by the values of a head.
    """

    kind: str
    path: str
    readers: list[Layer] = field(default_factory=list)
    writers: list[Layer] = field(default_factory=list)
    context: list[Layer] = field(default_factory=list)
    inner: list[Layer] = field(default_factory=list)
    tables: list[Layer] = field(default_factory=list)

    @property
    def order(self) -> int:
        """Position of its first layer."""
        return min(layer.order for layer in [*self.readers, *self.writers, *self.context])


@dataclass
class Block:
    """One layer of a stack.

    Args:
        ordered: the layers come as the model defines them, so that their order tells something.
    """

    path: str
    widths: tuple[int, int]
    ordered: bool = True
    sublayers: list[Sublayer] = field(default_factory=list)
    norms: list[Layer] = field(default_factory=list)
    scales: list[Layer] = field(default_factory=list)
    others: list[Layer] = field(default_factory=list)

    @property
    def layers(self) -> list[Layer]:
        """All layers whose role in the block is known."""
        return [layer for sub in self.sublayers for layer in _layers_of(sub)] + self.norms + self.scales

    @property
    def crosses(self) -> bool:
        """Whether a sublayer attends to another stream."""
        return any(sub.context for sub in self.sublayers)

    @property
    def is_pre_norm(self) -> bool:
        """Whether each sublayer reads through a norm of its own, as far as order and names tell.

        A norm that comes first in the block, or is called so ('layernorm_before', 'input_layernorm'). Where the order
        says nothing, as in alphabetical files: one numbered norm ('norm1', 'ln_2') for each sublayer, and an MLP
        other than that of torch's encoder layers ('linear1').
        """
        if not self.norms or any(BEFORE & {*norm.words} for norm in self.norms):
            return True
        if self.ordered:
            return min(norm.order for norm in self.norms) < min(sub.order for sub in self.sublayers)
        numbered = all(re.search(r'(norm|ln)_?\d+$', norm.path) for norm in self.norms)
        torch_layer = any(re.search(r'\blinear\d$', layer.path) for sub in self.sublayers for layer in sub.readers)
        return numbered and not torch_layer and len(self.norms) == len(self.sublayers)

    def norm_of(self, sublayer: Sublayer) -> Layer | None:
        """Return the norm that a sublayer of a pre-norm block reads through, or None."""
        subs = sorted(self.sublayers, key=lambda sub: sub.order)
        if len(self.norms) == len(subs):
            return self.norms[subs.index(sublayer)]
        starts = {id(sub): sub.order for sub in subs}
        for norm in self.norms:
            later = [sub for sub in subs if starts[id(sub)] > norm.order]
            if later and later[0] is sublayer:
                return norm
        return None

    def scale_of(self, sublayer: Sublayer) -> Layer | None:
        """Return the scale on what a sublayer writes, or None."""
        subs = sorted(self.sublayers, key=lambda sub: sub.order)
        return self.scales[subs.index(sublayer)] if len(self.scales) == len(subs) else None


def find_blocks(layers: Sequence[Layer], *, ordered: bool = True) -> list[Block]:
    """Return the blocks with attention, in order, with everything in them.

    Args:
        ordered: see ``Block``.
    """
    parts: dict[str, dict[str, Layer]] = {}
    for layer in layers:
        if layer.part and layer.is_matrix:
            parts.setdefault(layer.path.rpartition('.')[0], {})[layer.part] = layer
    blocks: dict[str, Block] = {}
    for parent, found in parts.items():
        if not {'q', 'k'} <= found.keys():
            continue
        root = _root(parent)
        path = _block_path(root, layers)
        block = blocks.setdefault(path, Block(path, found['q'].inputs, ordered))
        block.sublayers.append(_attention(parent, root, found, layers))
    for block in blocks.values():
        taken = {id(layer) for sub in block.sublayers for layer in _layers_of(sub)}
        inside = [layer for layer in layers if _is_in(layer.path, block.path) and id(layer) not in taken]
        inside = [
            layer for layer in inside if not any(_is_in(layer.path, p) for p in blocks if len(p) > len(block.path))
        ]
        _sort_in(block, inside)
    return list(blocks.values())


def _is_in(path: str, parent: str) -> bool:
    return not parent or path == parent or path.startswith(f'{parent}.')


def _layers_of(sub: Sublayer) -> list[Layer]:
    return [*sub.readers, *sub.writers, *sub.context, *sub.inner, *sub.tables]


def _root(parent: str) -> str:
    """Return the outermost module above q, k and v that is called attention, else the one that holds them."""
    words = parent.split('.')
    named = [i for i, word in enumerate(words) if 'attn' in tokens(word) and not word.isdigit()]
    while named and named[-1] - 1 in named:
        named.pop()
    return '.'.join(words[: named[-1] + 1]) if named else parent


def _block_path(root: str, layers: Sequence[Layer]) -> str:
    """Return the innermost list element around an attention module that holds other matrices too."""
    path = root
    while path:
        path = path.rpartition('.')[0]
        if path.rpartition('.')[2].isdigit():
            others = [one for one in layers if one.is_matrix and _is_in(one.path, path) and not _is_in(one.path, root)]
            if any(not one.part for one in others):
                return path
    return root.rpartition('.')[0]


def _attention(parent: str, root: str, parts: dict[str, Layer], layers: Sequence[Layer]) -> Sublayer:
    query, key, value = parts['q'], parts['k'], parts.get('v')
    around = [one for one in layers if _is_in(one.path, root) and not one.part]
    sub = Sublayer('attention', parent, [query])
    memory = [one for one in (key, value) if one is not None]
    crosses = key.inputs != query.inputs or _is_cross(root)
    (sub.context if crosses else sub.readers).extend(memory)
    inner = (value or key).outputs[0]
    shortened = any(one.is_matrix and not WRITER & {*one.words[-2:]} for one in around)
    for one in around:
        if shortened and one.is_norm and not {'q', 'k'} & {*one.words[-2:]}:
            continue  # on the stream, behind the convolution that shortens what k and v read (SegFormer, PVT)
        if (
            one.is_matrix
            and one.inputs[0] in (inner, query.outputs[0])
            and WRITER & {*one.words[-2:]}
            and not sub.writers
        ):
            sub.writers.append(one)
        elif one.is_vector and one.is_norm and one.weight.old[-1:] != () and _belongs(one, inner, query):
            sub.inner.append(one)
        elif not one.is_matrix:
            sub.tables.append(one)
    return sub


def _belongs(norm: Layer, inner: int, query: Layer) -> bool:
    """Tell whether a norm inside attention works on all heads' values at once."""
    return max(norm.weight.old) in (inner, query.outputs[0]) and not {'before', 'after'} & {*norm.words}


def _is_cross(root: str) -> bool:
    """Tell whether attention looks at another stream: by its name, or as the second in a list."""
    last = root.rpartition('.')[2].lower()
    if CROSS & {*tokens(last)} or last in ('encoder_attn', 'multihead_attn', 'attn2', 'crossattention'):
        return True
    listed = re.search(r'attentions\.(\d+)', root)
    return listed is not None and int(listed[1]) > 0


def _sort_in(block: Block, inside: Sequence[Layer]) -> None:
    """Put the layers of a block that are not attention where they belong."""
    mlps: dict[str, Sublayer] = {}
    hidden: dict[str, int] = {}
    for layer in inside:
        place = _mlp_path(layer, block.path)
        width = block.widths[0]
        if layer.is_matrix and layer.weight.old[1] == 1 != layer.weight.old[0]:
            mlps.setdefault(place, Sublayer('mlp', place)).inner.append(layer)
        elif layer.is_matrix and width in (layer.weight.old[0], layer.weight.old[1]):
            sub = mlps.setdefault(place, Sublayer('mlp', place))
            writes = layer.weight.old[0] == width and (layer.weight.old[1] != width or bool(sub.readers))
            (sub.writers if writes else sub.readers).append(layer)
            hidden[place] = layer.weight.old[1 if writes else 0]
        elif layer.is_vector and place in mlps and place != block.path and max(layer.weight.old) == hidden.get(place):
            mlps[place].inner.append(layer)
        elif layer.is_scale:
            block.scales.append(layer)
        elif layer.is_norm and max(layer.weight.old) == width:
            block.norms.append(layer)
        else:
            block.others.append(layer)
    for sub in mlps.values():
        if sub.readers and sub.writers:
            block.sublayers.append(sub)
        else:
            block.others += _layers_of(sub)


def _mlp_path(layer: Layer, block: str) -> str:
    """Return the module inside a block that is called an MLP or an expert, else the block."""
    words = layer.path.removeprefix(block).strip('.').split('.')
    for i, word in enumerate(words):
        if {'mlp', 'expert', 'experts'} & {*tokens(word)}:
            end = i + 2 if i + 1 < len(words) - 1 and words[i + 1].isdigit() and word.endswith('s') else i + 1
            return '.'.join([block, *words[:end]]).strip('.')
    return block
