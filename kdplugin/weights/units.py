"""Tensors grouped into units: the smallest layers that map as one, with fused attention taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from kdplugin.weights.naming import attention_part, natural_key, split_leaf

FUSED = {'qkv': ('q', 'k', 'v'), 'kv': ('k', 'v'), 'gate_up': ('gate', 'up')}
SORTED = 5
"""From how many neighbours on a list in alphabetical order is sorted and not defined so."""
OUTPUTS = ('o_proj', 'out_proj', 'proj', 'c_proj', 'dense', 'wo', 'o', 'to_out.0')
"""Names of the layer after attention, whose inputs are as many as the queries' outputs."""


@dataclass(frozen=True)
class Atom:
    """One tensor, or the rows [start, stop) of a fused one.

    Args:
        name: the tensor.
        shape: the shape of these rows.
        rows: the slice along ``axis``, or None for the whole tensor.
        axis: where outputs are: 0, or 1 in layers that keep their weight transposed (GPT-2's Conv1D).
    """

    name: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None
    axis: int = 0

    @property
    def core(self) -> tuple[int, ...]:
        """The shape without ones at either end, and without a time of one frame.

        A 1x1 convolution's is that of a linear layer; (O, I, 1, H, W), over one frame, that of one over images.
        """
        shape = list(self.shape)
        if len(shape) == 5 and shape[2] == 1:
            shape.pop(2)
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
        order: module path -> when it ran first, from ``kdplugin.weights.mapping.execution``.

    Returns:
        Units in the order of execution where known, else in the order given. If that order is alphabetical, as
        safetensors files have it, numbers are ordered by value.
    """
    members: dict[str, dict[str, Atom]] = {}
    parts: dict[str, str | None] = {}
    for name, shape in shapes.items():
        path, role = split_leaf(name)
        if name.endswith('.gamma') and f'{path}.beta' not in shapes:
            path, role = name, 'weight'
        found = attention_part(path)
        axis = _output_axis(tuple(shape), shapes.get(f'{path}.bias'))
        places = {}
        sizes = _sizes(shape[axis], *found, shapes) if found and found[1] in FUSED else ()
        for suffix, part, atom in _split(name, tuple(shape), found[1] if found else None, axis, sizes):
            places[f'{found[0]}.{suffix}'.lstrip('.') if found and suffix else path] = part, atom
        if any(role in members.get(place, {}) for place in places):  # a module with both 'q' and 'q_proj'
            places = {name: (None, Atom(name, tuple(shape)))}
        for place, (part, atom) in places.items():
            members.setdefault(place, {})[role] = atom
            parts[place] = part
    if not is_definition_order(shapes):
        members = {path: members[path] for path in sorted(members, key=natural_key)}
    if order:
        runs = _first_runs(members, order)
        members = {path: members[path] for path in sorted(members, key=lambda path: _run_key(path, runs))}
    return [Unit(path, atoms, parts[path], rank) for rank, (path, atoms) in enumerate(members.items())]


def _output_axis(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> int:
    return int(len(shape) == 2 and bias is not None and shape[0] != bias[0] == shape[1])


def _sizes(rows: int, module: str, part: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Return how many rows of a fused layer each part has; () if that cannot be.

    Parts are of one size, unless queries, which the layer after attention tells, are more than keys and values.
    """
    count = len(FUSED[part])
    after = next((shapes[name] for end in OUTPUTS if (name := f'{module}.{end}.weight'.lstrip('.')) in shapes), ())
    inputs = after[1] if part == 'qkv' and len(after) == 2 else 0
    rest = rows - inputs
    if inputs and rows != 3 * inputs and rest > 0 and rest % 2 == 0 and inputs % (rest // 2) == 0:
        return (inputs, rest // 2, rest // 2)
    return () if rows % count else (rows // count,) * count


def _split(
    name: str, shape: tuple[int, ...], part: str | None, axis: int, sizes: tuple[int, ...]
) -> Iterable[tuple[str, str | None, Atom]]:
    names = FUSED.get(part or '', ())
    if not names:
        yield (part or '', part, Atom(name, shape))
    elif not sizes:
        yield ('', None, Atom(name, shape))
    for index, (one, size) in enumerate(zip(names, sizes, strict=False)):
        start = sum(sizes[:index])
        piece = (*shape[:axis], size, *shape[axis + 1 :])
        yield (one, one, Atom(name, piece, (start, start + size), axis))


def is_definition_order(names: Iterable[str]) -> bool:
    """Tell whether names come as modules define them: each module's tensors together, and not sorted."""
    listed = list(names)
    paths = [split_leaf(name)[0] for name in listed]
    runs = sum(1 for before, after in zip([None, *paths], paths, strict=False) if before != after)
    together = runs <= len(set(paths)) * 1.1
    has_bias = any(name.endswith('.bias') for name in listed) and any(name.endswith('.weight') for name in listed)
    alphabetical = (has_bias or _choices(paths) >= SORTED) and listed in (
        sorted(listed),
        sorted(listed, key=natural_key),
    )
    return together and not alphabetical


def _choices(paths: Iterable[str]) -> int:
    """Return how many times a module of another name came next to one, lists counted once: chances to be unsorted."""
    children: dict[str, set[str]] = {}
    for path in paths:
        parts = re.sub(r'\d+', '#', path).split('.')
        for depth, part in enumerate(parts):
            children.setdefault('.'.join(parts[:depth]), set()).add(part)
    return sum(len(names) - 1 for names in children.values())


def _first_runs(paths: Iterable[str], order: Mapping[str, int]) -> dict[str, tuple[float, int]]:
    """Return for each path and all modules above when it first runs, and its place in the file."""
    runs: dict[str, tuple[float, int]] = {}
    for place, path in enumerate(paths):
        above = path
        rank = next((float(order[up]) for up in _upwards(path) if up in order), float('inf'))
        while above:
            own = (float(order.get(above, rank)), place)
            runs[above] = min(runs.get(above, own), own)
            above = above.rpartition('.')[0]
    return runs


def _run_key(path: str, runs: Mapping[str, tuple[float, int]]) -> list[tuple[int, float, int]]:
    """Return a sort key: elements of a list by their number, other modules by when they run."""
    keys = []
    for up in reversed(list(_upwards(path))[:-1]):
        last = up.rpartition('.')[2]
        keys.append((0, float(last), 0) if last.isdigit() else (1, *runs[up]))
    return keys


def _upwards(path: str) -> Iterable[str]:
    """Yield a path, the paths above it, and '' at last."""
    while path:
        yield path
        path = path.rpartition('.')[0]
    yield ''
