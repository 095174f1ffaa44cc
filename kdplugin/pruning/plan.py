"""Which attention heads and FFN neurons of a vision transformer stay: a plan that prints, goes to JSON and comes back.

Scores and budgets take the decisions; ``kdplugin.pruning.surgery`` only carries them out. A person can read a plan,
compare two of them and edit one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.io import write_text

VERSION = 1
WHAT = 'pruning plan'

Kept = tuple[tuple[int, ...], ...]
"""Kept units of each block, sorted."""


@dataclass(frozen=True)
class PruningPlan:
    """The heads and neurons of each block that a pruned model keeps.

    Args:
        heads: indices of the kept heads, for each block, in ascending order; at least one.
        neurons: indices of the kept neurons of the FFN's hidden layer, likewise.
        num_heads: heads of each block of the teacher.
        hidden: neurons of each block of the teacher.
        head_dim: width of a head, which stays.
        prefix: what the names of the backbone's tensors begin with in the teacher's file: 'img_backbone.', or ''.
        about: how the plan was made: scorer, budget, the teacher's hash; plain values.

    Raises:
        CheckpointError: the numbers contradict each other.

    Example:
        >>> plan = PruningPlan(heads=((0, 2), (1, 3)), neurons=((0, 1), (1, 2)), num_heads=4, hidden=3, head_dim=8)
        >>> plan.head_counts, plan.neuron_counts, plan.rows(0)[:9]
        ((2, 2), (2, 2), [0, 1, 2, 3, 4, 5, 6, 7, 16])
        >>> PruningPlan.from_json(plan.to_json()) == plan
        True
    """

    heads: Kept
    neurons: Kept
    num_heads: int
    hidden: int
    head_dim: int
    prefix: str = ''
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ('num_heads', 'hidden', 'head_dim'):
            value = getattr(self, name)
            if not _is_count(value) or value < 1:
                raise CheckpointError(f'Expected {name} of at least 1 but got {value!r}. Correct the plan.')
        if not isinstance(self.prefix, str) or not (self.prefix == '' or self.prefix.endswith('.')):
            raise CheckpointError(
                f"Expected prefix '' or one that ends with a dot but got {self.prefix!r}. Write 'img_backbone.'."
            )
        if not isinstance(self.about, dict):
            raise CheckpointError(f'Expected about to be a dict but got {type(self.about).__name__}. Correct the plan.')
        for name, total in (('heads', self.num_heads), ('neurons', self.hidden)):
            object.__setattr__(self, name, _kept(getattr(self, name), name, total))
        if len(self.heads) != len(self.neurons):
            raise CheckpointError(
                f'Expected heads and neurons of the same blocks but got {len(self.heads)} and {len(self.neurons)} '
                'blocks. Give both for every block.'
            )

    @classmethod
    def whole(
        cls, depth: int, num_heads: int, hidden: int, head_dim: int, prefix: str = '', **about: Any
    ) -> PruningPlan:
        """Return the plan that keeps everything."""
        heads, neurons = tuple(range(num_heads)), tuple(range(hidden))
        return cls((heads,) * depth, (neurons,) * depth, num_heads, hidden, head_dim, prefix, about)

    def __str__(self) -> str:
        heads, neurons = sum(self.head_counts), sum(self.neuron_counts)
        lines = [
            f'pruning plan of {self.depth} blocks: {heads} of {self.depth * self.num_heads} heads, '
            f'{neurons} of {self.depth * self.hidden} neurons'
        ]
        lines += [
            f'  block {block}: {len(kept)} of {self.num_heads} heads [{_ranges(kept)}], '
            f'{len(self.neurons[block])} of {self.hidden} neurons'
            for block, kept in enumerate(self.heads)
        ]
        return '\n'.join(lines)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.heads)

    @property
    def head_counts(self) -> tuple[int, ...]:
        """Kept heads of each block: ``num_heads`` of the pruned model."""
        return tuple(map(len, self.heads))

    @property
    def neuron_counts(self) -> tuple[int, ...]:
        """Kept neurons of each block: ``ffn_hidden`` of the pruned model."""
        return tuple(map(len, self.neurons))

    @property
    def prunes_heads(self) -> bool:
        """Whether any block loses a head."""
        return set(self.head_counts) != {self.num_heads}

    @property
    def prunes_neurons(self) -> bool:
        """Whether any block loses a neuron."""
        return set(self.neuron_counts) != {self.hidden}

    def rows(self, block: int) -> list[int]:
        """Return the rows of q, k and v, and columns of proj, that belong to a block's kept heads."""
        return [head * self.head_dim + row for head in self.heads[block] for row in range(self.head_dim)]

    def replaced(self, **values: Any) -> PruningPlan:
        """Return the plan with other values."""
        return replace(self, **values)

    def to_json(self) -> str:
        """Return the plan as JSON text, one line for each block's heads and neurons."""
        content = {'what': WHAT, 'version': VERSION, **asdict(self)}
        parts = []
        for name, value in content.items():
            text = json.dumps(value)
            if name in ('heads', 'neurons'):
                text = '[\n' + ',\n'.join(f'  {json.dumps(kept)}' for kept in value) + '\n ]'
            parts.append(f' {json.dumps(name)}: {text}')
        return '{\n' + ',\n'.join(parts) + '\n}'

    @classmethod
    def from_json(cls, text: str, name: str = 'the text') -> PruningPlan:
        """Read what ``to_json`` wrote, or a person edited.

        Args:
            name: what messages call the text.

        Raises:
            CheckpointError: the text is not a plan.
        """
        try:
            content = json.loads(text)
        except ValueError as error:
            raise CheckpointError(
                f'Expected the JSON of a pruning plan in {name} but got {error}. Write one with tools/prune_heads.py.'
            ) from None
        if not is_pruning_plan(content) or content.get('version') != VERSION:
            told = [f'{key}={content.get(key)!r}' for key in ('what', 'version')] if isinstance(content, dict) else []
            raise CheckpointError(
                f'Expected a pruning plan (version {VERSION}) in {name} but got '
                f'{", ".join(told) or type(content).__name__}. '
                'Write one with tools/prune_heads.py.'
            )
        values = {key: value for key, value in content.items() if key not in ('what', 'version')}
        fields = cls.__dataclass_fields__
        unknown = [key for key in values if key not in fields]
        missing = [key for key in fields if key not in values and key not in ('prefix', 'about')]
        if unknown or missing:
            wrong = (unknown or missing)[0]
            raise CheckpointError(
                f'Expected {", ".join(fields)} in {name} but {wrong!r} is {"unknown" if unknown else "missing"}.'
                f'{did_you_mean(wrong, fields) if unknown else ""} Correct the plan.'
            )
        try:
            return cls(**values)
        except CheckpointError as error:
            raise CheckpointError(f'{name}: {error}') from None

    def write(self, path: str | Path) -> None:
        """Write the plan as a JSON file, whole or not at all; its folder is made where there is none."""
        write_text(path, self.to_json() + '\n')

    @classmethod
    def read(cls, path: str | Path) -> PruningPlan:
        """Read a plan from a JSON file.

        Raises:
            CheckpointError: the file is missing or not a plan.
        """
        if not Path(path).is_file():
            raise CheckpointError(f'Expected a pruning plan but {path} does not exist. Check the path.')
        return cls.from_json(Path(path).read_text(), str(path))


def is_pruning_plan(content: object) -> bool:
    """Tell whether the content of a JSON file says that it is a pruning plan."""
    return isinstance(content, Mapping) and content.get('what') == WHAT


def is_pruning_file(path: str | Path) -> bool:
    """Tell whether a JSON file says that it is a pruning plan; one that is not JSON is none."""
    try:
        return is_pruning_plan(json.loads(Path(path).read_text()))
    except (ValueError, OSError):
        return False


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kept(blocks: object, name: str, total: int) -> Kept:
    """Return kept units as tuples, or say which block is wrong."""
    if not isinstance(blocks, Sequence) or isinstance(blocks, str) or not blocks:
        raise CheckpointError(
            f'Expected {name} as lists of indices, one for each block, but got {blocks!r}. Give them.'
        )
    for block, kept in enumerate(blocks):
        if not isinstance(kept, Sequence) or isinstance(kept, str) or not all(map(_is_count, kept)):
            raise CheckpointError(f'Expected indices of {name} of block {block} but got {kept!r}. Give whole numbers.')
        if not kept:
            raise CheckpointError(f'Expected at least one of the {name} of block {block} but got none. Keep one.')
        if list(kept) != sorted(set(kept)):
            raise CheckpointError(
                f'Expected {name} of block {block} in ascending order, each once, but got {list(kept)[:12]}. Sort them.'
            )
        if kept[0] < 0 or kept[-1] >= total:
            wrong = kept[0] if kept[0] < 0 else kept[-1]
            raise CheckpointError(
                f'Expected {name} of block {block} from 0 to {total - 1} but got {wrong}. Correct the plan.'
            )
    return tuple(tuple(kept) for kept in blocks)


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as text, neighbours joined.

    Example:
        >>> _ranges((0, 1, 2, 5, 7, 8))
        '0-2 5 7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ' '.join(str(first) if first == last else f'{first}-{last}' for first, last in runs)
