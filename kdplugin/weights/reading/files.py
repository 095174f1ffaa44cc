"""One checkpoint file as a source: its tensors stay on disk until they are asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.naming import natural_key
from kdplugin.weights.reading.damage import safetensors_damage
from kdplugin.weights.reading.io import read_checkpoint
from kdplugin.weights.reading.tensor_source import MemorySource, TensorSource

WINDOW = 256 << 20
"""Bytes that may be read through one mapping: it is made anew after that, as what was read stays in memory with it."""

Take = Callable[[Mapping[str, Any]], Mapping[str, Tensor]]
"""Takes the tensors out of a whole checkpoint."""


class FileSource(TensorSource):
    """A file that is mapped into memory, and mapped anew after every ``WINDOW`` bytes.

    Raises:
        CheckpointError: the file cannot be read, or it changed between two mappings.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file
        self._state = self._stat()
        self._read = 0
        self._layout: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}

    def _map(self) -> None:
        """Map the file, in place of an earlier mapping."""
        raise NotImplementedError

    def _copy(self, key: str) -> Tensor:
        """Read one tensor."""
        raise NotImplementedError

    def _stat(self) -> tuple[int, int, int]:
        try:
            stat = self._file.stat()
        except OSError:
            raise CheckpointError(f'Expected a checkpoint file but {self._file} is gone. Check the path.') from None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def __getitem__(self, key: str) -> Tensor:
        self._layout[key]  # a KeyError before anything is read
        if self._read >= WINDOW:
            if self._stat() != self._state:
                raise CheckpointError(
                    f'Expected {self._file} to stay as it was but it changed while it was read. Start again.'
                )
            self._map()
            self._read = 0
        value = self._copy(key)
        self._read += value.numel() * value.element_size()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout)

    def __len__(self) -> int:
        return len(self._layout)

    def __contains__(self, key: object) -> bool:
        return key in self._layout

    def shape(self, key: str) -> tuple[int, ...]:
        return self._layout[key][0]

    def dtype(self, key: str) -> torch.dtype:
        return self._layout[key][1]


class SafetensorsSource(FileSource):
    """A ``.safetensors`` file, in the natural order of its names (the file sorts by type and letter)."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self._map()
        try:
            self._layout = {key: self._header(key) for key in sorted(self._opened.keys(), key=natural_key)}
        except safetensors.SafetensorError as error:
            raise safetensors_damage(error, file) from None
        if not self._layout:
            raise CheckpointError(
                f'Expected a state dict of tensors in {file} but got no entries. Pass a file that holds model weights.'
            )

    def _map(self) -> None:
        self._opened: Any = None
        try:
            self._opened = safetensors.safe_open(self._file, 'pt')
        except (safetensors.SafetensorError, OSError, RuntimeError) as error:
            raise safetensors_damage(error, self._file) from None

    def _header(self, key: str) -> tuple[tuple[int, ...], torch.dtype]:
        """Return shape and type from the header; torch's type is that of an empty slice."""
        part = self._opened.get_slice(key)
        shape = tuple(part.get_shape())
        return shape, (part[:0] if shape else self._opened.get_tensor(key)).dtype

    def _copy(self, key: str) -> Tensor:
        value: Tensor = self._opened.get_tensor(key)
        return value.clone()


class PickleSource(FileSource):
    """A zip file of ``torch.save``, in its own order.

    Args:
        file: what ``torch.save`` has written since PyTorch 1.6.
        take: takes the tensors out of the whole checkpoint.
        trust_checkpoint: see ``read_checkpoint``.
    """

    def __init__(self, file: Path, take: Take, trust_checkpoint: bool | None = None) -> None:
        super().__init__(file)
        self._take, self._trust = take, trust_checkpoint
        self._map()
        self._layout = {key: (tuple(value.shape), value.dtype) for key, value in self._tensors.items()}

    def _map(self) -> None:
        self._tensors: Mapping[str, Tensor] = {}
        self._tensors = self._take(read_checkpoint(self._file, trust_checkpoint=self._trust, mmap=True))

    def _copy(self, key: str) -> Tensor:
        return self._tensors[key].detach().clone()


def open_file(file: Path, take: Take, trust_checkpoint: bool | None = None) -> TensorSource:
    """Open one file under the names that ``take`` gives, or those in a ``.safetensors`` file.

    A pickle from before PyTorch 1.6 is not a zip file and cannot be mapped: it is read at once.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or holds no weights.
    """
    if file.suffix == '.safetensors' and file.is_file():
        return SafetensorsSource(file)
    if file.is_file() and zipfile.is_zipfile(file):
        return PickleSource(file, take, trust_checkpoint)
    return MemorySource(take(read_checkpoint(file, trust_checkpoint=trust_checkpoint)), str(file))
