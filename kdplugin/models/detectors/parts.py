"""Which tensors of a teacher's checkpoint belong to which part of a student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean

SHOWN = 8


@dataclass(frozen=True)
class PartReport:
    """What happened to the tensors of one prefix of a checkpoint.

    Args:
        prefix: in the file.
        tensors: how many it has.
        parameters: numbers in them.
        use: what became of them.
    """

    prefix: str
    tensors: int
    parameters: int
    use: str

    def __str__(self) -> str:
        """Return for example 'map_head: 120 tensors, 5,000,000 parameters, ignored'."""
        return f'{self.prefix}: {self.tensors} tensors, {self.parameters:,} parameters, {self.use}'


@dataclass(frozen=True)
class Split:
    """A checkpoint by parts.

    Args:
        tensors: under the names that the student has for them.
        reports: one for each prefix, in the order of the file.
    """

    tensors: dict[str, Tensor]
    reports: tuple[PartReport, ...]


def split_checkpoint(
    weights: Mapping[str, Tensor],
    parts: Mapping[str, str],
    ignore_prefixes: Sequence[str],
    name: str,
    elsewhere: Sequence[str] = (),
) -> Split:
    """Sort a checkpoint's tensors into the parts of a student.

    Args:
        weights: of the whole teacher.
        parts: by the student's name of a part, its prefix in the file: ``dict(backbone='img_backbone')``.
        ignore_prefixes: of what the student does not build.
        name: how messages call the file.
        elsewhere: parts whose tensors are another's business; they are left out and reported.

    Raises:
        CheckpointError: tensors under a prefix that nobody names, or a prefix that has no tensors.

    Example:
        >>> import torch
        >>> file = {'img_backbone.w': torch.zeros(2), 'map_head.w': torch.zeros(3, 4)}
        >>> split = split_checkpoint(file, {'backbone': 'img_backbone'}, ['map_head'], 'Orion.pth')
        >>> list(split.tensors), str(split.reports[1])
        (['backbone.w'], 'map_head: 1 tensors, 12 parameters, ignored')
    """
    owners = {prefix: part for part, prefix in parts.items()}
    groups: dict[str, list[str]] = {}
    strangers: dict[str, list[str]] = {}
    for key in weights:
        prefix = _prefix_of(key, [*owners, *ignore_prefixes])
        (strangers if prefix is None else groups).setdefault(prefix or key.split('.')[0], []).append(key)
    _refuse_strangers(weights, strangers, name)
    _refuse_empty([*owners, *ignore_prefixes], groups, name)
    tensors: dict[str, Tensor] = {}
    reports = []
    for prefix, keys in groups.items():
        part = owners.get(prefix)
        use = 'ignored' if part is None else f'not loaded here: {part}' if part in elsewhere else f'loaded as {part}'
        reports.append(PartReport(prefix, len(keys), sum(weights[key].numel() for key in keys), use))
        if part is not None and part not in elsewhere:
            tensors.update({f'{part}{key[len(prefix) :]}': weights[key] for key in keys})
    return Split(tensors, tuple(reports))


def _prefix_of(key: str, prefixes: Sequence[str]) -> str | None:
    """Return the longest of the prefixes under which a key is."""
    found = [prefix for prefix in prefixes if key == prefix or key.startswith(f'{prefix}.')]
    return max(found, key=len, default=None)


def _refuse_strangers(weights: Mapping[str, Tensor], strangers: Mapping[str, Sequence[str]], name: str) -> None:
    if not strangers:
        return
    counts = [
        f'{prefix} ({len(keys)} tensors, {sum(weights[key].numel() for key in keys):,} parameters)'
        for prefix, keys in strangers.items()
    ]
    raise CheckpointError(
        f'Expected every tensor of {name} to belong to a part of the student but got those of {", ".join(counts)}. '
        f'Build the parts, or leave them out on purpose: ignore_prefixes={sorted(strangers)}.'
    )


def _refuse_empty(prefixes: Sequence[str], groups: Mapping[str, Sequence[str]], name: str) -> None:
    for prefix in prefixes:
        if prefix not in groups:
            raise CheckpointError(
                f'Expected tensors under {prefix!r} in {name} but it has none.{did_you_mean(prefix, groups)} '
                f'Its other prefixes are {sorted(groups)[:SHOWN]}. Correct sources or ignore_prefixes.'
            )


def load_parts(model: nn.Module, tensors: Mapping[str, Tensor], parts: Sequence[str], name: str) -> None:
    """Load tensors into parts of a model, which they must fit in every name and shape.

    Raises:
        CheckpointError: lists what is missing, left over or of another shape; nothing is changed then.
    """
    for part in parts:
        module = model.get_submodule(part)
        own = module.state_dict()
        given = {key[len(part) + 1 :]: value for key, value in tensors.items() if key.startswith(f'{part}.')}
        wrong = [f'{key} is missing' for key in own if key not in given and not key.endswith('num_batches_tracked')]
        wrong += [f'{key} is left over' for key in given if key not in own]
        wrong += [
            f'{key} is {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
            for key in own
            if key in given and given[key].shape != own[key].shape
        ]
        if wrong:
            raise CheckpointError(
                f'Expected {name} to fit {part} in all {len(own)} tensors but in {len(wrong)} it does not: '
                f'{"; ".join(wrong[:SHOWN])}. Use the checkpoint that was trained with this {part}.'
            )
    for part in parts:
        given = {key[len(part) + 1 :]: value for key, value in tensors.items() if key.startswith(f'{part}.')}
        model.get_submodule(part).load_state_dict(given, strict=False)
