"""From matched units to plan entries: which rows of which tensors, in which layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isqrt

from kdplugin.weights.mapping.assignment import AMBIGUOUS, Match
from kdplugin.weights.naming import tokens
from kdplugin.weights.plan import Entry, Piece, Step
from kdplugin.weights.units import Atom, Unit

SCORE_WEIGHTS = {'shape': 0.5, 'name': 0.3, 'hierarchy': 0.2}
SAME_ROLE = 0.3
"""What it adds to the likeness of names that both tensors are a weight, or both a bias."""


@dataclass(frozen=True)
class Part:
    """Rows of a target tensor and where they come from.

    Args:
        wanted: the rows.
        unit: their target unit, by index.
        match: the match of that unit, or None.
        found: the source tensor or rows of one, or None.
        filler: zeros stand in, because the source computes without this tensor.
    """

    wanted: Atom
    unit: int
    match: Match | None = None
    found: Atom | None = None
    filler: bool = False


@dataclass
class Converter:
    """Turn matches into entries.

    Args:
        source, target: units of both sides.
        shapes: shapes of both sides' tensors by name, source first.
        matches: by target unit.
        threshold: entries that score less are refused.
        weights: of shape, name and hierarchy in the score.
        tolerance: how much an axis may differ, relative to the larger size; tensors that do are 'projected'.
    """

    source: Sequence[Unit]
    target: Sequence[Unit]
    shapes: tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]
    matches: Mapping[int, Match]
    threshold: float = 0.6
    weights: Mapping[str, float] = field(default_factory=lambda: SCORE_WEIGHTS)
    tolerance: float = 0.0

    def entries(self) -> list[Entry]:
        """Return one entry for each target tensor, in the target's order."""
        parts: dict[str, list[Part]] = {name: [] for name in self.shapes[1]}
        for index, unit in enumerate(self.target):
            match = self.matches.get(index)
            origin = self.source[match.source] if match else None
            for role, atom in unit.atoms.items():
                found = origin.atoms.get(role) if origin else None
                parts[atom.name].append(Part(atom, index, match, found))
        return [self._entry(name, parts[name]) for name in self.shapes[1]]

    def _entry(self, name: str, parts: list[Part]) -> Entry:
        shape = tuple(self.shapes[1][name])
        parts = self._with_fillers(sorted(parts, key=lambda part: part.wanted.rows or (0, 0)))
        missing = [part for part in parts if part.found is None and not part.filler]
        if missing:
            return Entry(name, shape, 'random', score=0.0, margin=0.0, reason=self._why_missing(name, missing[0]))
        found = [part.match for part in parts if part.found is not None and part.match is not None]
        score, margin = self._score(parts), min(match.margin for match in found)
        rivals = tuple(self.source[i].main.name for match in found for i in match.rivals)
        names = {part.found.name for part in parts if part.found is not None}
        if margin < AMBIGUOUS:
            reason = f'ambiguous: {", ".join(sorted({*names, *rivals})[:4])} fit equally well'
            return Entry(
                name, shape, 'refused', score=score, margin=margin, reason=reason, alternatives=(*names, *rivals)
            )
        if score < self.threshold:
            reason = f'the best candidate {min(names)} scores {score:.2f}, below {self.threshold}'
            return Entry(name, shape, 'refused', score=score, margin=margin, reason=reason, alternatives=tuple(names))
        misfits = [atom for part in parts if (atom := part.found) and not self._fits(atom.core, part.wanted.core)]
        if misfits:
            reason = f'{misfits[0].name} belongs to its layer but has shape {misfits[0].shape}'
            return Entry(name, shape, 'refused', score=score, margin=margin, reason=reason, alternatives=tuple(names))
        pieces = self._pieces(parts)
        plain = len(pieces) == 1 and not pieces[0].steps
        kind = 'converted' if not plain else 'exact' if pieces[0].source == name else 'renamed'
        if any(not _same_sizes(part) for part in parts):
            kind = 'projected'
        join = parts[0].wanted.axis if len(pieces) > 1 else None
        return Entry(name, shape, kind, pieces, join, score, margin, found[0].why, rivals)

    def _fits(self, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
        if sorted(old[:2]) == sorted(new[:2]) and old[2:] == new[2:]:
            return True
        old = old[:2] + old[3:] if len(old) == 5 and len(new) == 4 else old
        near = all(abs(a - b) <= self.tolerance * max(a, b) for a, b in zip(old, new, strict=False))
        return self.tolerance > 0 and len(old) == len(new) and near

    def _with_fillers(self, parts: list[Part]) -> list[Part]:
        """Let zeros stand for the bias of k in a fused bias whose source has biases for q and v alone (BEiT, EVA)."""
        biased = {self.target[part.unit].part for part in parts if part.found is not None}
        return [
            replace(part, filler=True)
            if part.found is None and part.match and self.target[part.unit].part == 'k' and {'q', 'v'} <= biased
            else part
            for part in parts
        ]

    def _why_missing(self, name: str, part: Part) -> str:
        if part.match is not None:
            return f'{self.source[part.match.source].path} has no such tensor'
        if name in self.shapes[0]:
            return f'the source has it with shape {tuple(self.shapes[0][name])}'
        return 'no source tensor of this shape is left'

    def _score(self, parts: Sequence[Part]) -> float:
        scores = []
        for part in parts:
            if part.found is None or part.match is None:
                continue
            shape = 1.0 if part.found.core == part.wanted.core or self._turns_like_others(part.unit) else 0.7
            name = 1.0 if part.found.name == part.wanted.name else SAME_ROLE + (1 - SAME_ROLE) * part.match.name
            scores.append(
                self.weights['shape'] * shape
                + self.weights['name'] * name
                + self.weights['hierarchy'] * min(1.0, part.match.nearby)
            )
        return round(min(scores) / sum(self.weights.values()), 4)

    def _pieces(self, parts: Sequence[Part]) -> tuple[Piece, ...]:
        whole = self._whole(parts)
        if whole:
            layout = self._layout(whole.shape, self.shapes[1][parts[0].wanted.name], self._is_turned(parts[0].unit))
            return (Piece(whole.name, layout),)
        pieces = []
        for part in parts:
            if part.found is None:
                pieces.append(Piece(None, (), part.wanted.shape))
                continue
            steps = []
            if part.found.rows:
                start, stop = part.found.rows
                steps.append(Step('narrow', {'dim': part.found.axis, 'start': start, 'stop': stop}))
            layout = self._layout(part.found.shape, part.wanted.shape, self._is_turned(part.unit))
            pieces.append(Piece(part.found.name, (*steps, *layout)))
        return tuple(pieces)

    def _whole(self, parts: Sequence[Part]) -> Atom | None:
        """Return the whole source tensor if the parts are its rows, all of them and in order."""
        found = [part.found for part in parts]
        if len(parts) < 2 or any(atom is None or atom.rows is None for atom in found):
            return None
        atoms = [atom for atom in found if atom is not None]
        shape = self.shapes[0][atoms[0].name]
        rows = [row for atom in atoms for row in (atom.rows or ())]
        ends = rows[1:-1:2] == rows[2:-1:2] and rows[0] == 0 and rows[-1] == shape[atoms[0].axis]
        return Atom(atoms[0].name, tuple(shape)) if ends and len({atom.name for atom in atoms}) == 1 else None

    def _layout(self, have: tuple[int, ...], want: tuple[int, ...], turned: bool) -> tuple[Step, ...]:
        """Return the steps from one layout to another of the same values: axes of one, transposition."""
        have, want = tuple(have), tuple(want)
        old, new = Atom('', have).core, Atom('', want).core
        steps = []
        if len(old) == len(new) > 1 and sorted(old[:2]) == sorted(new[:2]) and old[2:] == new[2:] and turned:
            if have != old:
                steps.append(Step('reshape', {'shape': list(old)}))
            steps.append(Step('permute', {'dims': [1, 0, *range(2, len(old))]}))
            have = new
        elif old != new:
            return self._other_width(have, want)
        if have != want:
            steps.append(Step('reshape', {'shape': list(want)}))
        return tuple(steps)

    def _is_turned(self, unit: int) -> bool:
        """Tell whether a unit's weight is kept transposed on one side; for a square one, as in the layers around it."""
        if unit in self._turned:
            return self._turned[unit]
        path = self.target[unit].path
        while path:
            path = path.rpartition('.')[0]
            around = [self._turned[other] for other in self._layers if self.target[other].path.startswith(path)]
            if around:
                return 2 * sum(around) > len(around)
        return False

    def _turns_like_others(self, unit: int) -> bool:
        """Tell whether all layers around a transposed one are transposed as well, so that it is no coincidence."""
        block = self.target[unit].path.rpartition('.')[0]
        around = [self._turned[other] for other in self._layers if self.target[other].path.startswith(f'{block}.')]
        return len(around) > 1 and all(around)

    @cached_property
    def _layers(self) -> list[int]:
        """Those of them that multiply: tables are looked up the same way everywhere."""
        return [index for index in self._turned if not {'embed', 'pos'} & set(tokens(self.target[index].path))]

    @cached_property
    def _turned(self) -> dict[int, bool]:
        """Which matched units' weights are transposed, where their shapes tell."""
        known = {}
        for index, match in self.matches.items():
            pair = self.source[match.source].main, self.target[index].main
            old, new = pair[0].core, pair[1].core
            if len(old) < 2:
                continue
            if old[0] != old[1]:
                known[index] = old != new
            elif pair[0].rows and pair[1].rows:
                known[index] = pair[0].axis != pair[1].axis
        return known

    @staticmethod
    def _other_width(have: tuple[int, ...], want: tuple[int, ...]) -> tuple[Step, ...]:
        """Return the steps that give another width its number of axes: convolutions over time, and 1x1 ones."""
        if len(have) == 5 and len(want) == 4 and have[3:] == want[2:]:
            return (Step('collapse_time', {'how': 'sum'}),)
        if len(have) != len(want):
            core = Atom('', have).core
            full = (*core, *([1] * (len(want) - len(core)))) if len(core) <= len(want) else core
            return (Step('reshape', {'shape': list(full)}),)
        return ()


def _same_sizes(part: Part) -> bool:
    """Tell whether a part has its values already, in whatever layout."""
    return part.found is None or sorted(part.found.core) == sorted(part.wanted.core)


def resized_positions(
    entries: Sequence[Entry], shapes: tuple[Mapping[str, tuple[int, ...]], Mapping[str, tuple[int, ...]]]
) -> list[Entry]:
    """Fill position embeddings of another length: (1, N, D) or (N, D), a square grid behind 0 to 2 extra tokens."""
    used = {name for entry in entries for name in entry.sources}
    free = [name for name in shapes[0] if name not in used and 'pos' in tokens(name)]
    result = []
    for entry in entries:
        fits = [name for name in free if 'pos' in tokens(entry.target) and not entry.loads and _resize(
            shapes[0][name], entry.shape)]  # fmt: skip
        if len(fits) == 1:
            step, final = _resize(shapes[0][fits[0]], entry.shape), Step('reshape', {'shape': list(entry.shape)})
            old = tuple(shapes[0][fits[0]])
            flat = () if len(old) == 3 else (Step('reshape', {'shape': [1, *old]}),)
            steps = (*flat, *([step] if step else []), *([final] if len(entry.shape) != 3 else []))
            piece = Piece(fits[0], steps)
            entry = Entry(
                entry.target, entry.shape, 'converted', (piece,), None, 0.8, 1.0, 'position embedding resized'
            )
        result.append(entry)
    return result


def _resize(old: tuple[int, ...], new: tuple[int, ...]) -> Step | None:
    if len(old) not in (2, 3) or len(new) not in (2, 3) or old[-1] != new[-1] or old[-2] == new[-2]:
        return None
    one, two = _grid(old[-2]), _grid(new[-2])
    if one is None or two is None:
        return None
    (prefix, side), (target_prefix, target_side) = one, two
    return Step(
        'resize_positions',
        {
            'prefix': prefix,
            'grid': [side, side],
            'target_prefix': target_prefix,
            'target_grid': [target_side, target_side],
        },
    )


def _grid(length: int) -> tuple[int, int] | None:
    """Return (extra tokens, side) of a position table, or None if it holds no square grid."""
    for prefix in (0, 1, 2):
        side = isqrt(length - prefix)
        if side > 1 and side * side == length - prefix:
            return prefix, side
    return None
