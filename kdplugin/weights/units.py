"""Tensors grouped into units: the smallest layers that map as one, with fused attention taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from kdplugin.weights.naming import attention_part, natural_key, split_leaf

FUSED = {'qkv': ('q', 'k', 'v'), 'kv': ('k', 'v')}


@dataclass(frozen=True)
class Atom:
    """One tensor, or the rows [start, stop) of a fused one.

    Args:
        name: the tensor.
        shape: the shape of these rows.
        rows: the slice along axis 0, or None for the whole tensor.
    """

    name: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None

    @property
    def core(self) -> tuple[int, ...]:
        """The shape without ones at either end: a 1x1 convolution's is that of a linear layer."""
        shape = list(self.shape)
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        while len(shape) > 1 and shape[0] == 1:
            shape.pop(0)
        return tuple(shape)


@dataclass(frozen=True)
class Unit:
    """A layer: its tensors by role ('weight', 'bias', 'mean', 'var', 'count').

    Args:
        path: the module's dotted path; parts of a fused layer end in '.q', '.k' or '.v'.
        part: 'q', 'k' or 'v' inside an attention module, else None.
        order: position among the units.
    """

    path: str
    atoms: Mapping[str, Atom] = field(hash=False)
    part: str | None = None
    order: int = 0

    @property
    def main(self) -> Atom:
        """The tensor that decides what the unit can map to: its weight, else its first."""
        return self.atoms.get('weight') or next(iter(self.atoms.values()))

    @property
    def key(self) -> tuple[object, ...]:
        """What two units must share to be able to map: sizes of the weight, either way round for two axes."""
        core = self.main.core
        kind = 'weight' if 'weight' in self.atoms else next(iter(self.atoms))
        if len(core) >= 2 and kind == 'weight':
            return (kind, len(core), tuple(sorted(core[:2])), core[2:])
        return (kind, len(core), core)

    @property
    def size(self) -> int:
        """Number of values in all its tensors."""
        return sum(prod(atom.shape) for atom in self.atoms.values())


def build_units(shapes: Mapping[str, tuple[int, ...]], order: Mapping[str, int] | None = None) -> list[Unit]:
    """Group named tensors into units, in order.

    Args:
        shapes: tensor name -> shape, in the file's or the model's order.
        order: module path -> when it ran first, from ``kdplugin.weights.execution``.

    Returns:
        Units in the order of execution where known, else in the order given. If that order is alphabetical, as
        safetensors files have it, numbers are ordered by value.
    """
    members: dict[str, dict[str, Atom]] = {}
    parts: dict[str, str | None] = {}
    for name, shape in shapes.items():
        path, role = split_leaf(name)
        found = attention_part(path)
        for suffix, part, atom in _split(name, tuple(shape), found[1] if found else None):
            place = f'{found[0]}.{suffix}'.lstrip('.') if found and suffix else path
            members.setdefault(place, {})[role] = atom
            parts[place] = part
    if not is_definition_order(shapes):
        members = {path: members[path] for path in sorted(members, key=natural_key)}
    if order:
        ranked = sorted(enumerate(members), key=lambda item: (_first_run(item[1], order), item[0]))
        members = {path: members[path] for _, path in ranked}
    return [Unit(path, atoms, parts[path], rank) for rank, (path, atoms) in enumerate(members.items())]


def _split(name: str, shape: tuple[int, ...], part: str | None) -> Iterable[tuple[str, str | None, Atom]]:
    names = FUSED.get(part or '', ())
    if not names:
        yield (part or '', part, Atom(name, shape))
        return
    if shape[0] % len(names):
        yield ('', None, Atom(name, shape))
        return
    rows = shape[0] // len(names)
    for index, one in enumerate(names):
        yield (one, one, Atom(name, (rows, *shape[1:]), (index * rows, (index + 1) * rows)))


def is_definition_order(names: Iterable[str]) -> bool:
    """Tell whether names come as modules define them: each module's tensors together, and not sorted."""
    listed = list(names)
    paths = [split_leaf(name)[0] for name in listed]
    runs = sum(1 for before, after in zip([None, *paths], paths, strict=False) if before != after)
    together = runs <= len(set(paths)) * 1.1
    has_bias = any(name.endswith('.bias') for name in listed) and any(name.endswith('.weight') for name in listed)
    alphabetical = has_bias and listed in (sorted(listed), sorted(listed, key=natural_key))
    return together and not alphabetical


def _first_run(path: str, order: Mapping[str, int]) -> float:
    while path:
        if path in order:
            return order[path]
        path = path.rpartition('.')[0]
    return order.get('', float('inf'))
