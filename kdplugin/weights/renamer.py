"""Give the tensors of a checkpoint other names, and leave everything else in it as it was."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.reading.io import read_checkpoint, write_checkpoint
from kdplugin.weights.reading.source import open_source
from kdplugin.weights.reading.stand_ins import Container, Forgotten
from kdplugin.weights.reading.unwrap import CONTAINERS, plain_names, tensors_of


class WeightRenamer:
    """Rename tensors of a file and save it again, with the methods of lit_wsl's ``WeightRenamer``.

    Names are those of the file: a ``module.`` before all of them stays until ``remove_prefix`` takes it away. What
    would lose a tensor, or do nothing, is an error, and leaves the names as they were.

    Args:
        weights: a checkpoint file, a folder or hub id that ``open_source`` reads, or a state dict.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or holds something besides tensors as weights.

    Example:
        >>> renamer = WeightRenamer('old.pth')  # doctest: +SKIP
        >>> renamer.remove_prefix('module.')  # doctest: +SKIP
        >>> renamer.rename_keys({'layer1.weight': 'backbone.weight'})  # doctest: +SKIP
        >>> renamer.save('new.pth')  # doctest: +SKIP
    """

    def __init__(self, weights: str | Path | Mapping[str, Any], trust_checkpoint: bool | None = None) -> None:
        self.header: dict[str, str] = {}
        content: Mapping[str, Any]
        if isinstance(weights, Mapping):
            self.name, content = getattr(weights, 'name', 'the state dict'), weights
        elif not (file := Path(weights).expanduser()).is_file():
            self.name, content = str(weights), open_source(weights)
        else:
            self.name, content = str(weights), read_checkpoint(file, trust_checkpoint=trust_checkpoint)
            if file.suffix == '.safetensors':
                with safe_open(file, 'pt') as opened:
                    self.header = opened.metadata() or {}
        tensors_of(content, self.name)
        self.weights: dict[str, Any] = dict(content)
        self._backup: dict[str, Tensor] | None = None

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The tensors under their present names."""
        inner: Mapping[str, Any] = self.weights
        for key in self._containers():
            inner = inner[key]
        return dict(inner)

    def _containers(self) -> list[str]:
        found, inner = [], self.weights
        for key in CONTAINERS:
            if isinstance(inner.get(key), Mapping):
                found.append(key)
                inner = inner[key]
        return found

    def _replace(self, tensors: dict[str, Tensor]) -> None:
        self.weights = _put(self.weights, self._containers(), tensors)

    def list_keys(self) -> list[str]:
        """Return all names, in the file's order."""
        return list(self.state_dict)

    def search_keys(self, pattern: str | re.Pattern[str]) -> list[str]:
        """Return the names that match, in the file's order.

        Args:
            pattern: text that a name contains, in any case ('layer1'); with one of ``*?[`` a shell pattern over the
                whole name ('*.bn?.weight'); a compiled regular expression is searched for as it is.
        """
        if isinstance(pattern, re.Pattern):
            return [key for key in self.list_keys() if pattern.search(key)]
        text = pattern.lower() if set(pattern) & set('*?[') else f'*{pattern.lower()}*'
        return [key for key in self.list_keys() if fnmatch.fnmatchcase(key.lower(), text)]

    def rename_keys(
        self, mapping: Mapping[str, str] | ProjectionPlan, preserve_unmapped: bool = True, backup: bool = True
    ) -> None:
        """Rename tensors.

        Args:
            mapping: {old name: new name}, as ``WeightMapper.suggest_mapping`` returns it, or a plan that only renames.
                Old names may be those that ``open_source`` gives: without a ``module.`` that all begin with.
            preserve_unmapped: keep tensors that the mapping does not name; False drops them.
            backup: keep the names of before, the oldest ones, for ``restore_backup``.

        Raises:
            CheckpointError: the mapping is empty, an old name is not in the file, two tensors would get one name, or
                the plan does more than rename.
        """
        pairs = renames_of(mapping) if isinstance(mapping, ProjectionPlan) else dict(mapping)
        if not pairs:
            raise CheckpointError(f'Expected names of {self.name} to rename but got none. Check what made the mapping.')
        tensors = self.state_dict
        plain = plain_names(tensors, self.name)
        pairs = {self._known(old, tensors, plain): new for old, new in pairs.items()}
        kept = [old for old in tensors if old in pairs or preserve_unmapped]
        renamed: dict[str, str] = {}
        for old in kept:
            new = pairs.get(old, old)
            if new in renamed:
                raise CheckpointError(
                    f'Expected a name for each tensor but got {new!r} for both {renamed[new]!r} and {old!r}. '
                    'Rename or drop one of them (preserve_unmapped=False drops what the mapping does not name).'
                )
            renamed[new] = old
        if backup and self._backup is None:
            self._backup = tensors
        self._replace({new: tensors[old] for new, old in renamed.items()})

    def _known(self, old: str, tensors: Mapping[str, Tensor], plain: Mapping[str, str]) -> str:
        if old in tensors:
            return old
        if old in plain:
            return plain[old]
        raise CheckpointError(
            f'Expected names of {self.name} but got {old!r}.{did_you_mean(old, tensors)} '
            'Correct the mapping, or leave the name out.'
        )

    def rename_with_prefix(self, old_prefix: str, new_prefix: str, backup: bool = True) -> None:
        """Put ``new_prefix`` in the place of ``old_prefix`` wherever a name begins with it.

        Raises:
            CheckpointError: no name begins with it, or two tensors would get one name.
        """
        keys = self.list_keys()
        pairs = {key: new_prefix + key[len(old_prefix) :] for key in keys if key.startswith(old_prefix)}
        if not pairs:
            raise CheckpointError(
                f'Expected names of {self.name} that begin with {old_prefix!r} but none does; they begin with '
                f'{", ".join(dict.fromkeys(key.split(".")[0] for key in keys))}. Give one of these prefixes.'
            )
        self.rename_keys(pairs, backup=backup)

    def remove_prefix(self, prefix: str, backup: bool = True) -> None:
        """Take a prefix away wherever a name begins with it; raises as ``rename_with_prefix``."""
        self.rename_with_prefix(prefix, '', backup=backup)

    def add_prefix(self, prefix: str, backup: bool = True) -> None:
        """Put a prefix before all names."""
        self.rename_with_prefix('', prefix, backup=backup)

    def restore_backup(self) -> None:
        """Bring back the names of before the first renaming with ``backup=True``.

        Raises:
            CheckpointError: there was none.
        """
        if self._backup is None:
            raise CheckpointError('Expected a backup but got none. Rename with backup=True first.')
        self._replace(self._backup)

    def save(self, path: str | Path) -> None:
        """Write the file, atomically; a ``.pth`` keeps the other entries of the checkpoint, such as ``meta``.

        Objects that the safe reader leaves out (``reading.stand_ins``) are not among them. A ``.safetensors`` takes the
        tensors, and the header of the ``.safetensors`` they came from.

        Raises:
            CheckpointError: names for a ``.safetensors`` begin with ``module.``, which its readers take away.
        """
        names = self.list_keys()
        if Path(path).suffix == '.safetensors' and list(plain_names(names, self.name)) != names:
            raise CheckpointError(
                f'Expected plain names for {path} but got {names[0]!r}. Call remove_prefix, or save as .pth.'
            )
        write_checkpoint(_picklable(self.weights), path, metadata=self.header)

    def print_summary(self, top_n: int = 10) -> None:
        """Print how much is in the file, and the first names and shapes."""
        tensors = self.state_dict
        table = Table('name', 'shape', 'type', box=box.SIMPLE_HEAD)
        for key, value in list(tensors.items())[:top_n]:
            table.add_row(key, str(tuple(value.shape)), str(value.dtype).removeprefix('torch.'))
        console = Console(markup=False, highlight=False, emoji=False)
        console.print(f'Weight file: {self.name}', soft_wrap=True)
        console.print(f'{len(tensors):,} tensors, {sum(value.numel() for value in tensors.values()):,} values')
        console.print(table)
        if len(tensors) > top_n:
            console.print(f'... and {len(tensors) - top_n:,} more')


def _picklable(value: Any) -> Any:
    """Return plain containers in the place of stand-ins, without the objects that reading has left out."""
    if type(value) in (list, tuple):
        return type(value)(_picklable(item) for item in value if not _is_left_out(item))
    if type(value) is dict or isinstance(value, Container):
        items = value.items()
        return {key: _picklable(item) for key, item in items if not (_is_left_out(key) or _is_left_out(item))}
    return value


def _is_left_out(value: Any) -> bool:
    return isinstance(value, Forgotten) or (isinstance(value, type) and issubclass(value, Forgotten))


def _put(content: dict[str, Any], containers: list[str], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return ``content`` with ``tensors`` in the place of what lies under the containers."""
    return {**content, containers[0]: _put(content[containers[0]], containers[1:], tensors)} if containers else tensors


def renames_of(plan: ProjectionPlan) -> dict[str, str]:
    """Return what a plan renames as {old name: new name}; tensors that it leaves to the target are left out.

    Raises:
        CheckpointError: a tensor is made of several, changed, or used twice: renaming cannot do that.
    """
    pairs: dict[str, str] = {}
    others = []
    for entry in plan.entries:
        if entry.loads:
            whole = len(entry.sources) == len(entry.pieces) == 1 and not entry.pieces[0].steps
            if not whole or entry.sources[0] in pairs:
                others.append(entry.target)
            else:
                pairs[entry.sources[0]] = entry.target
    if others:
        raise CheckpointError(
            f'Expected a plan that only renames but {len(others)} of its {len(plan)} tensors need more, such as '
            f'{", ".join(others[:3])}. Carry it out with tools/project_weights.py --plan, or with apply_plan.'
        )
    return pairs
