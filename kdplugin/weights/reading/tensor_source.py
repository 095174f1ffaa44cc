"""Named tensors that are read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class TensorSource(Mapping[str, Tensor]):
    """Named tensors that are read when asked for: ``source[name]``, ``source.shape(name)``, ``source.dtype(name)``.

    Iteration follows the file's order where the format has one, else the natural order of names. What a file gives is
    a copy, so that no tensor keeps the file in memory. Tensors are the caller's to read, never to change.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def shape(self, key: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading its values."""
        raise NotImplementedError

    def dtype(self, key: str) -> torch.dtype:
        """Return a tensor's type without reading its values."""
        raise NotImplementedError

    def __contains__(self, key: object) -> bool:
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.name!r}, {len(self)} tensors)'


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

    def __contains__(self, key: object) -> bool:
        return key in self._tensors

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._tensors[key].shape)

    def dtype(self, key: str) -> torch.dtype:
        return self._tensors[key].dtype


class RenamedSource(TensorSource):
    """Some tensors of another source under other names.

    Args:
        base: where they are read.
        names: {name here: name there}, in the order of iteration.
    """

    def __init__(self, base: TensorSource, names: Mapping[str, str]) -> None:
        super().__init__(base.name)
        self._base, self._names = base, dict(names)

    def __getitem__(self, key: str) -> Tensor:
        return self._base[self._names[key]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def shape(self, key: str) -> tuple[int, ...]:
        return self._base.shape(self._names[key])

    def dtype(self, key: str) -> torch.dtype:
        return self._base.dtype(self._names[key])
