"""Checkpoints read lazily, one tensor at a time, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class TensorSource(Mapping[str, Tensor]):
    """Named tensors that are read when asked for: ``source[name]``, ``source.shape(name)``, ``source.dtype(name)``.

    Iteration follows the file's order where the format has one. Tensors are the caller's to read, never to change.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading its values."""
        raise NotImplementedError

    def dtype(self, key: str) -> torch.dtype:
        """Return a tensor's type without reading its values."""
        raise NotImplementedError


class MemorySource(TensorSource):
    """A state dict that is already in memory (or on the meta device)."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str = 'the state dict') -> None:
        super().__init__(name)
        self._tensors = dict(tensors)

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors[key].detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self._tensors[key].dtype


def open_source(source: Any) -> TensorSource:
    """Return a ``TensorSource`` for a path, a folder, a hub id or a state dict."""
    if isinstance(source, TensorSource):
        return source
    return MemorySource(source)
