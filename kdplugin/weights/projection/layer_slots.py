"""The layers of a plan's target, with the shapes of their tensors before and after: where axes change their width.

Names and order are the target's, for these come from a module: definition order tells what a checkpoint's may not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kdplugin.errors import CheckpointError
from kdplugin.weights.naming import LEAVES, attention_part, natural_key, split_leaf, tokens
from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.plan_shapes import MetaSource, piece_shape
from kdplugin.weights.units import FUSED, is_definition_order

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """One piece of one target tensor.

    Args:
        entry, piece: where it is in the plan.
        name: the target tensor.
        source: the source tensor, or None for zeros.
        old, new: shape after the piece's steps, and in the target.
    """

    entry: int
    piece: int
    name: str
    source: str | None
    old: Shape
    new: Shape

    def change(self, dim: int) -> tuple[int, int]:
        """Return the widths of an axis before and after."""
        return self.old[dim], self.new[dim]

    @property
    def changing(self) -> list[int]:
        """The axes whose width changes."""
        return [dim for dim, (old, new) in enumerate(zip(self.old, self.new, strict=True)) if old != new]


@dataclass(frozen=True)
class Layer:
    """A module's tensors that a plan loads, by role: 'weight', 'bias', 'mean', 'var', 'count'.

    Args:
        part: 'q', 'k' or 'v' in attention; fused layers are taken apart.
        order: position among the layers, in the target's order.
    """

    path: str
    tensors: Mapping[str, Slot] = field(hash=False)
    part: str | None = None
    order: int = 0

    @property
    def weight(self) -> Slot:
        """The tensor that says most about the layer: its weight, else its first."""
        return self.tensors.get('weight') or next(iter(self.tensors.values()))

    @property
    def is_matrix(self) -> bool:
        """Whether it maps channels to channels: a weight of two axes and more, but no table of vectors."""
        return 'weight' in self.tensors and not self._is_flat and not self.is_table

    @property
    def is_scale(self) -> bool:
        """Whether it is a gain on what a layer writes, such as LayerScale."""
        last = self.weight.name.rpartition('.')[2]
        return self._is_flat and 'bias' not in self.tensors and ('scale' in self.words or last.startswith('gamma'))

    @property
    def is_table(self) -> bool:
        """Whether it holds vectors to add, on the last axis: position, class and query embeddings."""
        named = self.weight.name == self.path and not self.is_scale
        words = {'embed', 'pos', 'q', 'tgt', 'token'} & {*self.words}
        plain = len(self.weight.old) == 2 and 'bias' not in self.tensors and 'proj' not in self.words
        return 'weight' in self.tensors and (named or (plain and bool(words) and self.part is None))

    @property
    def is_vector(self) -> bool:
        """Whether it works on each channel by itself: a norm or a scale."""
        return not self.is_table and self._is_flat

    @property
    def _is_flat(self) -> bool:
        slots = self.tensors.values()
        own = all(slot.name.rpartition('.')[2] not in LEAVES or slot.name.endswith('gamma') for slot in slots)
        return all(len(s.old) < 2 or (own and sum(n != 1 for n in s.old) < 2) for s in slots)

    @property
    def is_norm(self) -> bool:
        """Whether it is a normalisation: a gain and a bias, or a gain that is called so."""
        both = {'weight', 'bias'} <= self.tensors.keys()
        return self.is_vector and 'weight' in self.tensors and (both or 'norm' in self.words)

    @property
    def words(self) -> tuple[str, ...]:
        """The words of its path."""
        return tokens(self.path)

    @property
    def outputs(self) -> tuple[int, int]:
        """Widths before and after of what it writes."""
        return self.weight.change(0)

    @property
    def inputs(self) -> tuple[int, int]:
        """Widths before and after of what it reads."""
        return self.weight.change(1)


def read_layers(plan: ProjectionPlan, source: MetaSource) -> tuple[ProjectionPlan, list[Layer]]:
    """Return the plan with fused attention in pieces where its width changes, and the layers of what it loads.

    Raises:
        CheckpointError: a piece has another number of axes than its target.
    """
    changing = {split_leaf(entry.target)[0] for entry in plan.entries if entry.loads and _changes(entry, source)}
    entries = [
        _in_parts(entry, source) if entry.loads and split_leaf(entry.target)[0] in changing else entry
        for entry in plan.entries
    ]
    members: dict[str, dict[str, Slot]] = {}
    parts: dict[str, str | None] = {}
    for index, entry in enumerate(entries):
        if not entry.loads:
            continue
        path, role = split_leaf(entry.target)
        found = attention_part(path)
        names = _part_names(entry, found[1] if found else None)
        for number, (piece, shapes) in enumerate(zip(entry.pieces, _shapes(entry, source), strict=True)):
            slot = Slot(index, number, entry.target, piece.source, *shapes)
            part = names[number] if len(names) > number else None
            place = f'{found[0]}.{part}'.lstrip('.') if found and part else path
            place = f'{place}#{number}' if len(entry.pieces) > 1 and not part else place
            members.setdefault(place, {})[role] = slot
            parts[place] = part
    if not is_definition_order(entry.target for entry in entries):
        members = {path: members[path] for path in sorted(members, key=natural_key)}
    layers = [Layer(path, slots, parts[path], order) for order, (path, slots) in enumerate(members.items())]
    return replace(plan, entries=tuple(entries)), layers


def _part_names(entry: Entry, part: str | None) -> Sequence[str | None]:
    if part in FUSED:
        return FUSED[part] if len(entry.pieces) == len(FUSED[part]) else ()
    return (part,)


def _shapes(entry: Entry, source: MetaSource) -> list[tuple[Shape, Shape]]:
    """Return the shapes of each piece before and after; a joined axis is shared out in proportion."""
    olds = [piece_shape(piece, source, {}) for piece in entry.pieces]
    if any(len(old) != len(entry.shape) for old in olds):
        raise CheckpointError(
            f'Expected pieces of {len(entry.shape)} axes for {entry.target} but got {", ".join(map(str, olds))}. '
            'Add steps that collapse or reshape them.'
        )
    if entry.join is None:
        return [(olds[0], entry.shape)]
    total = sum(old[entry.join] for old in olds)
    shares = [old[entry.join] * entry.shape[entry.join] / total for old in olds]
    if any(share != math.floor(share) for share in shares):
        raise CheckpointError(
            f'Expected {entry.target} of shape {entry.shape} to hold its pieces in proportion but got '
            f'{", ".join(map(str, olds))}. Correct the plan.'
        )
    news = [(*entry.shape[: entry.join], int(share), *entry.shape[entry.join + 1 :]) for share in shares]
    return list(zip(olds, news, strict=True))


def _changes(entry: Entry, source: MetaSource) -> bool:
    return any(old != new for old, new in _shapes(entry, source))


def _in_parts(entry: Entry, source: MetaSource) -> Entry:
    """Split the one piece of a fused layer that changes, so that q, k and v change apart from each other."""
    found = attention_part(split_leaf(entry.target)[0])
    names = FUSED.get(found[1], ()) if found else ()
    if len(entry.pieces) != 1 or not names or not entry.shape:
        return entry
    rows = piece_shape(entry.pieces[0], source, {})[0]
    if rows % len(names) or entry.shape[0] % len(names):
        return entry
    size = rows // len(names)
    cuts = [Step('narrow', {'dim': 0, 'start': i * size, 'stop': (i + 1) * size}) for i in range(len(names))]
    one = entry.pieces[0]
    return replace(entry, pieces=tuple(Piece(one.source, (*one.steps, cut), one.shape) for cut in cuts), join=0)
