"""Tensors whose shapes agree while the order of their values may not: settled by watching, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kdplugin.weights.mapping.assignment import Match
from kdplugin.weights.mapping.values import SAME
from kdplugin.weights.naming import name_similarity, tokens
from kdplugin.weights.plan import Entry, Piece, Step
from kdplugin.weights.units import Unit

Shapes = tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]
MergeOrder = Callable[[int, str], Sequence[int] | None]
"""From a side (0 source, 1 target) and the path of a patch-merging norm to the order of its channels, if observed."""


def with_cautions(entries: Sequence[Entry], shapes: Shapes, merge_order: MergeOrder) -> list[Entry]:
    """Return the entries with doubtful ones settled or refused."""
    by_name = {entry.target: entry for entry in entries}
    changes = (*_backgrounds(entries, shapes), *_merged_patches(entries, shapes, merge_order), *_by_heads(entries))
    for change in changes:
        by_name[change.target] = change
    return list(by_name.values())


def refused(entry: Entry, reason: str) -> Entry:
    """Return an entry that names its candidates and loads nothing."""
    return replace(entry, kind='refused', pieces=(), join=None, margin=0.0, reason=reason, alternatives=entry.sources)


def _backgrounds(entries: Sequence[Entry], shapes: Shapes) -> list[Entry]:
    """Refuse class scores where one side regresses a box for the background and the other does not.

    torchvision's first class is the background, mmdet's last; both score it.
    """
    changed = []
    for entry in entries:
        if not entry.loads or not entry.shape or len(entry.pieces) != 1 or 'cls' not in tokens(entry.target):
            continue
        rows = entry.shape[0]
        boxes = [
            _box_rows(side, name, rows) for side, name in zip(shapes, (entry.sources[0], entry.target), strict=True)
        ]
        if all(boxes) and boxes[0] != boxes[1]:
            where = (
                'the background has a box on one side alone: it may be the first row in one and the last in the other'
            )
            changed.append(refused(entry, where))
    return changed


def _by_heads(entries: Sequence[Entry]) -> list[Entry]:
    """Refuse fused attention that one side alone may keep head by head: GPT-NeoX, Bloom, Falcon, DeBERTa."""
    why = 'its rows may be ordered head by head in one of both: q, k and v of the first head, of the second, ...'
    changed = []
    for entry in entries:
        fused = {_head_by_head(name) for name in (entry.target, *entry.sources)}
        if entry.loads and len(fused) > 1 and entry.reason != SAME:
            changed.append(refused(entry, why))
    return changed


def _head_by_head(name: str) -> str | None:
    """Return the name of a fused layer that libraries fill in more than one order, else None."""
    layer = name.rpartition('.')[0].rpartition('.')[2]
    return layer if layer in ('query_key_value', 'in_proj') else None


def _box_rows(shapes: Mapping[str, tuple[int, ...]], name: str, classes: int) -> set[int]:
    """Return which of 4C and 4(C-1) the neighbours of a class layer have as rows."""
    around = name.rpartition('.')[0].rpartition('.')[0]
    rows = {shape[0] for other, shape in shapes.items() if other.startswith(around) and len(shape) >= 1}
    return rows & {4 * classes, 4 * (classes - 1)}


def _merged_patches(entries: Sequence[Entry], shapes: Shapes, merge_order: MergeOrder) -> list[Entry]:
    """Settle or refuse patch merging (Swin): 2x2 neighbours side by side in an order that differs between libraries."""
    changed = []
    for entry in entries:
        width = entry.shape[-1] if len(entry.shape) == 2 else 0
        if (
            not width
            or entry.shape[0] * 2 != width
            or entry.kind not in ('renamed', 'exact')
            or 'down' not in {*tokens(entry.target), *tokens(entry.sources[0])}
        ):
            continue
        paths = [name.rpartition('.')[0].rpartition('.')[0] for name in (entry.sources[0], entry.target)]
        norms = [
            e for e in entries if e.loads and e.shape == (width,) and e.target.startswith(paths[1] + '.')
            and len(e.sources) == 1 and e.sources[0].startswith(paths[0] + '.')
        ]  # fmt: skip
        if not norms or entry.reason == SAME:
            continue
        orders = [
            merge_order(0, norms[0].sources[0].rpartition('.')[0]),
            merge_order(1, norms[0].target.rpartition('.')[0]),
        ]
        if orders[0] is None or orders[1] is None:
            if entry.kind == 'exact':
                continue
            why = (
                'the order in which 2x2 patches are merged differs between libraries: map from the module to observe it'
            )
            changed += [refused(e, why) for e in (*norms, entry)]
        else:
            at = {channel: index for index, channel in enumerate(orders[0])}
            indices = [at[channel] for channel in orders[1]]
            if indices != sorted(indices):
                changed += [_indexed(e, len(e.shape) - 1, indices) for e in (*norms, entry)]
    return changed


def _indexed(entry: Entry, axis: int, indices: Sequence[int]) -> Entry:
    step = Step('index', {'dim': axis, 'indices': list(indices)})
    return replace(
        entry,
        kind='converted',
        pieces=(Piece(entry.sources[0], (step,)),),
        reason='patches merge in another order: observed',
    )


def near_misses(
    entries: Sequence[Entry], units: tuple[Sequence[Unit], Sequence[Unit]], matches: Mapping[int, Match]
) -> list[Entry]:
    """Refuse, instead of calling it random, what the source has for another number of rows or in a flattened form.

    Such are the heads of a detector for other classes, and a patch embedding that is a linear layer.
    """
    used = {match.source for match in matches.values()}
    left = [unit for index, unit in enumerate(units[0]) if index not in used]
    wanted = [unit for index, unit in enumerate(units[1]) if index not in matches]
    if not left or not wanted:
        return list(entries)
    likeness = name_similarity([unit.path for unit in left], [unit.path for unit in wanted])
    found: dict[str, tuple[str, str]] = {}
    for column, unit in enumerate(wanted):
        rows = [row for row, other in enumerate(left) if _nearly(other, unit)]
        if rows and (len(rows) == 1 or max(likeness[row, column] for row in rows) > 0.2):
            best = left[max(rows, key=lambda row: float(likeness[row, column]))]
            for role, atom in unit.atoms.items():
                if role in best.atoms:
                    found[atom.name] = (best.atoms[role].name, str(best.atoms[role].shape))
    return [
        replace(
            entry,
            kind='refused',
            reason=f'{found[entry.target][0]} may be meant, but its shape is {found[entry.target][1]}',
            alternatives=(found[entry.target][0],),
        )
        if entry.kind == 'random' and entry.target in found
        else entry
        for entry in entries
    ]


def lone_norms(
    entries: Sequence[Entry], units: tuple[Sequence[Unit], Sequence[Unit]], matches: Mapping[int, Match]
) -> list[Entry]:
    """Refuse statistics of a batch norm whose convolution is left out on both sides: they are those of its outputs."""
    used = {match.source for match in matches.values()}
    layers: tuple[dict[str, list[int]], ...] = ({}, {})
    for side, found in zip(units, layers, strict=True):
        for index, unit in enumerate(side):
            if len(unit.main.core) > 1:
                found.setdefault(unit.path.rpartition('.')[0], []).append(index)
    names: dict[str, str] = {}
    for target, match in matches.items():
        pair = units[0][match.source], units[1][target]
        beside = [found.get(unit.path.rpartition('.')[0], []) for unit, found in zip(pair, layers, strict=True)]
        alone = len(beside[0]) == len(beside[1]) == 1 and beside[0][0] not in used and beside[1][0] not in matches
        if 'mean' in pair[1].atoms and alone:
            names |= {atom.name: units[1][beside[1][0]].main.name for atom in pair[1].atoms.values()}
    why = 'it normalises the outputs of {}, which has no source'
    return [refused(e, why.format(names[e.target])) if e.loads and e.target in names else e for e in entries]


def _nearly(source: Unit, target: Unit) -> bool:
    old, new = source.main.core, target.main.core
    if len(old) == len(new) >= 2:
        return old[1:] == new[1:] and set(source.atoms) >= {'weight'} <= set(target.atoms)
    flat = sorted((old, new), key=len)
    return (
        len(flat[0]) == 2
        and len(flat[1]) == 4
        and flat[0][0] == flat[1][0]
        and flat[0][1] == flat[1][1] * flat[1][2] * flat[1][3]
    )
