"""What becomes of each tensor of a target: a plan that prints, goes to JSON and comes back.

Planning takes every decision; ``kdplugin.weights.apply`` only carries them out. A person can read a plan,
compare two of them and edit one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import write_text

KINDS = ('exact', 'renamed', 'converted', 'projected', 'random', 'refused')
"""How a target tensor is filled.

exact: same name, same values. renamed: other name, same values. converted: same values in another layout
(split, fused, transposed, permuted, reshaped), or resized positions. projected: another width. random: nothing in
the source fits, the target keeps its own initialisation. refused: something might fit but it cannot be known.
"""

OPERATIONS = {
    'narrow': ('dim', 'start', 'stop'),
    'permute': ('dims',),
    'reshape': ('shape',),
    'index': ('dim', 'indices'),
    'scale': ('factor',),
    'collapse_time': ('how',),
    'resize_positions': ('prefix', 'grid', 'target_prefix', 'target_grid'),
    'project': ('dim', 'group', 'side'),
    'expand': ('dim', 'size', 'how'),
    'centre': ('dim',),
    'multiply': ('dim', 'source'),
    'divide': ('dim', 'source'),
    'normalise': ('matrix',),
    'add_product': ('matrix', 'vector', 'rows'),
    'fill': ('shape', 'value'),
}
"""The operations a step can name and their arguments; ``kdplugin.weights.steps`` documents what each does."""

VERSION = 1


@dataclass(frozen=True)
class Step:
    """One operation on one tensor: a name from ``OPERATIONS`` and its arguments, plain values."""

    op: str
    args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.op not in OPERATIONS or set(self.args) != set(OPERATIONS[self.op]):
            wanted = ', '.join(OPERATIONS.get(self.op, OPERATIONS))
            raise CheckpointError(
                f'Expected a plan step of {wanted} but got {self.op}({", ".join(self.args)}). Correct the plan.'
            )

    def __str__(self) -> str:
        values = []
        for value in self.args.values():
            text = str(value)
            values.append(text if len(text) <= 40 else f'[{len(value)} values]')
        return f'{self.op}({", ".join(values)})'


@dataclass(frozen=True)
class Piece:
    """One source tensor and the steps that prepare it. Without a source it is zeros of ``shape``."""

    source: str | None
    steps: tuple[Step, ...] = ()
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        steps = ', '.join(map(str, self.steps))
        return steps or 'copy' if self.source is not None else f'zeros{self.shape}'


@dataclass(frozen=True)
class Entry:
    """What one target tensor is made of.

    Args:
        target: name of the target tensor.
        shape: its shape.
        kind: one of ``KINDS``; only the first four have pieces.
        pieces: prepared source tensors, concatenated along ``join`` if there are several.
        join: the axis of concatenation.
        score: 0 to 1, how well names, shapes and order agree; 1 for what is proven by values.
        margin: distance to the second-best choice; 0 means ambiguous.
        reason: why this was chosen, or why nothing was.
        alternatives: other source tensors that fit about as well.
    """

    target: str
    shape: tuple[int, ...]
    kind: str
    pieces: tuple[Piece, ...] = ()
    join: int | None = None
    score: float = 1.0
    margin: float = 1.0
    reason: str = ''
    alternatives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise CheckpointError(
                f'Expected a kind of {", ".join(KINDS)} for {self.target} but got {self.kind!r}. Correct the plan.'
            )
        if bool(self.pieces) != self.loads or (len(self.pieces) > 1) != (self.join is not None):
            raise CheckpointError(
                f'Expected pieces that fit kind {self.kind!r} of {self.target} but got {len(self.pieces)} with '
                f'join={self.join}. Give pieces to what is loaded, and join to more than one.'
            )

    @property
    def loads(self) -> bool:
        """Whether apply writes this tensor."""
        return self.kind not in ('random', 'refused')

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the source tensors, in order."""
        return tuple(piece.source for piece in self.pieces if piece.source is not None)

    @property
    def operation(self) -> str:
        """What happens to the sources, as text.

        Example:
            >>> narrow = Step('narrow', {'dim': 0, 'start': 0, 'stop': 4})
            >>> Entry('q', (4, 8), 'converted', (Piece('qkv', (narrow,)),)).operation
            'narrow(0, 0, 4)'
        """
        if not self.loads:
            return 'none: keeps its initialisation'
        pieces = list(map(str, self.pieces))
        if len(pieces) == 1:
            return pieces[0]
        same = f'{len(pieces)} x {pieces[0]}' if len(set(pieces)) == 1 else ' | '.join(pieces)
        return f'join(dim {self.join}): {same}'


@dataclass(frozen=True)
class AxisGroup:
    """Axes of several tensors that change width together and so share one basis.

    Args:
        kind: 'residual' (a linear stream: any basis), 'hidden' (behind an elementwise non-linearity: units are chosen
            or averaged, never rotated), or 'heads' (whole attention heads are chosen or averaged).
        source_width, target_width: size of the axis before and after.
        method: 'truncate', 'average' or 'svd'; a wider target has 'repeat' or 'zero', or 'svd' for a rotated stream.
        members: (source tensor, axis, side): the producers and consumers that a basis of method 'svd' is measured on.
            The axis is that of the prepared tensor; side is 'out' or 'in', 'gain' for a multiplicative vector such as
            a norm's weight, and in 'heads' groups 'q', 'k', 'o' (what reads the heads of queries, where several share
            a key), 'head' (an axis of heads) or 'dim' (within a head).
        unit: values that stay together: a head's width in 'heads' groups, else 1.
        target_unit: a head's width in the target; 0 where it stays the same.
        centred: the stream is read through LayerNorm, so the basis keeps the direction of all ones for the mean.
        rotary: which values of a head turn together where heads change their width: 'interleaved' (2i, 2i + 1),
            'halves' (i, i + S / 2), 'both' where it is not known, or 'none': then q and k may rotate within a head.
        queries: query heads for each key head, before and after; the widths are those of keys and values.
    """

    kind: str
    source_width: int
    target_width: int
    method: str
    members: tuple[tuple[str, int, str], ...]
    unit: int = 1
    target_unit: int = 0
    centred: bool = False
    rotary: str = 'both'
    queries: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class ProjectionPlan:
    """How a target is filled from a source, tensor by tensor.

    Args:
        source, target: what they are called in reports.
        entries: one for each target tensor, in the target's order.
        groups: axis groups by name, for 'project' steps.
        unused: source tensors that go nowhere, each with the reason.
        settings: how the plan was made.
        notes: what a person should know, for example that a dummy input could not be run.
    """

    source: str
    target: str
    entries: tuple[Entry, ...]
    groups: dict[str, AxisGroup] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.target for entry in self.entries]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise CheckpointError(f'Expected one entry for each tensor but got two for {twice}. Remove one.')

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, target: str) -> Entry:
        for entry in self.entries:
            if entry.target == target:
                return entry
        raise KeyError(target)

    @property
    def mapping(self) -> dict[str, str]:
        """The 1:1 part as {source name: target name}: tensors that are made of one whole source tensor."""
        whole = [entry for entry in self.entries if len(entry.pieces) == 1 and entry.sources]
        narrowed = {e.target for e in whole if any(step.op == 'narrow' for step in e.pieces[0].steps)}
        return {entry.sources[0]: entry.target for entry in whole if entry.target not in narrowed}

    def replaced(self, *entries: Entry) -> ProjectionPlan:
        """Return a plan where these entries stand in place of those for the same targets."""
        new = {entry.target: entry for entry in entries}
        return replace(self, entries=tuple(new.get(entry.target, entry) for entry in self.entries))

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        content = {'version': VERSION, **asdict(self)}
        return json.dumps(content, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ProjectionPlan:
        """Read what ``to_json`` wrote, or a person edited.

        Raises:
            CheckpointError: the text is not a plan.
        """
        try:
            content = json.loads(text)
            if not isinstance(content, Mapping) or content.get('version') != VERSION:
                raise ValueError(f'version {content.get("version") if isinstance(content, Mapping) else None}')
            return cls(
                source=content['source'],
                target=content['target'],
                entries=tuple(map(_entry, content['entries'])),
                groups={name: _group(value) for name, value in content['groups'].items()},
                unused=dict(content['unused']),
                settings=dict(content['settings']),
                notes=tuple(content['notes']),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f'Expected the JSON of a projection plan (version {VERSION}) but got '
                f'{type(error).__name__}: {error}. Write one with tools/map_weights.py.'
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the plan as a JSON file, atomically."""
        write_text(path, self.to_json() + '\n')

    @classmethod
    def load(cls, path: str | Path) -> ProjectionPlan:
        """Read a plan from a JSON file.

        Raises:
            CheckpointError: the file is missing or not a plan.
        """
        if not Path(path).is_file():
            raise CheckpointError(f'Expected a plan file but {path} does not exist. Check the path.')
        return cls.from_json(Path(path).read_text())


def _entry(value: Mapping[str, Any]) -> Entry:
    pieces = tuple(
        Piece(
            piece['source'],
            tuple(Step(**step) for step in piece['steps']),
            None if piece['shape'] is None else tuple(piece['shape']),
        )
        for piece in value['pieces']
    )
    plain = {**value, 'shape': tuple(value['shape']), 'alternatives': tuple(value['alternatives']), 'pieces': pieces}
    return Entry(**plain)


def _group(value: Mapping[str, Any]) -> AxisGroup:
    members = tuple((name, axis, side) for name, axis, side in value['members'])
    before, after = value.get('queries', (1, 1))
    return AxisGroup(**{**value, 'members': members, 'queries': (before, after)})
