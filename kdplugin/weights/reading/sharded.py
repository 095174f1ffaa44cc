"""A checkpoint in several files with an index, as Hugging Face libraries save large models."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.naming import natural_key
from kdplugin.weights.reading.files import open_file
from kdplugin.weights.reading.tensor_source import TensorSource
from kdplugin.weights.reading.unwrap import tensors_of


def read_index(file: Path) -> dict[str, str]:
    """Return {tensor: shard} of a ``*.index.json`` file.

    Raises:
        CheckpointError: it is not an index, puts a tensor into two shards, or names a file outside its folder.
    """
    try:
        weight_map = json.loads(file.read_bytes(), object_pairs_hook=_without_repeats)['weight_map']
        if not weight_map or not isinstance(weight_map, dict) or not all(map(_is_name, weight_map.values())):
            raise ValueError(f'weight_map {str(weight_map)[:80]}')
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise CheckpointError(
            f'Expected an index with a weight_map of tensors to files beside it but {file} has '
            f'{type(error).__name__}: {str(error)[:200]}. Copy it again from its source.'
        ) from None
    return weight_map


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if content.get(key, value) != value:
            raise ValueError(f'{key!r} in {content[key]} and in {value}')
        content[key] = value
    return content


def _is_name(shard: Any) -> bool:
    return isinstance(shard, str) and shard not in ('', '.', '..') and PurePosixPath(shard).name == shard


class ShardedSource(TensorSource):
    """The tensors of a sharded checkpoint in natural order, with one shard open at a time.

    A shard is compared with the index when it is first opened; opening the source opens none.

    Args:
        index: a ``*.safetensors.index.json`` or ``*.bin.index.json`` file, with the shards beside it.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        CheckpointError: the index cannot be used or a shard is missing; later, that a shard is damaged, or holds other
            tensors than the index says.
    """

    def __init__(self, index: Path, trust_checkpoint: bool | None = None) -> None:
        super().__init__(str(index))
        found = read_index(index)
        self._shard_of = {key: found[key] for key in sorted(found, key=natural_key)}
        self._index, self._trust = index, trust_checkpoint
        self._take = functools.partial(tensors_of, name=f'a shard of {index}')  # no method: a circle would live on
        self._layout: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        self._open: tuple[str, TensorSource] | None = None
        shards = sorted(set(found.values()), key=natural_key)
        missing = [shard for shard in shards if not (index.parent / shard).is_file()]
        if missing:
            raise CheckpointError(
                f'Expected the {len(shards)} shards that {index} names but {len(missing)} are missing: '
                f'{", ".join(missing[:5])}. Copy them into {index.parent}.'
            )

    def _shard(self, key: str) -> TensorSource:
        """Return the shard of a tensor, in place of the one that was open."""
        shard = self._shard_of[key]
        if self._open is None or self._open[0] != shard:
            self._open = None
            source = open_file(self._index.parent / shard, self._take, self._trust)
            if key not in self._layout:
                self._compare(shard, source)
            self._open = (shard, source)
        return self._open[1]

    def _compare(self, shard: str, source: TensorSource) -> None:
        """Demand that a shard holds what the index says, and note shapes and types."""
        wanted = [key for key, other in self._shard_of.items() if other == shard]
        lacking = [key for key in wanted if key not in source]
        if lacking:
            raise CheckpointError(
                f'Expected {len(wanted)} tensors of {self._index} in {shard} but it lacks {len(lacking)}: '
                f'{", ".join(lacking[:5])}. Copy the index and the shards again from one source.'
            )
        twice = [key for key in source if self._shard_of.get(key, shard) != shard]
        if twice:
            raise CheckpointError(
                f'Expected each tensor in one shard but {shard} holds {len(twice)} that {self._index} puts elsewhere: '
                f'{twice[0]} (in {self._shard_of[twice[0]]}). Copy the index and the shards again from one source.'
            )
        unknown = [key for key in source if key not in self._shard_of]
        if unknown:
            warnings.warn(
                f'{shard} holds {len(unknown)} tensors that {self._index} does not name, such as {unknown[0]}: '
                'they are not read.',
                stacklevel=4,
            )
        self._layout.update({key: (source.shape(key), source.dtype(key)) for key in wanted})

    def _described(self, key: str) -> tuple[tuple[int, ...], torch.dtype]:
        if key not in self._layout:
            self._shard(key)
        return self._layout[key]

    def __getitem__(self, key: str) -> Tensor:
        return self._shard(key)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)

    def __contains__(self, key: object) -> bool:
        return key in self._shard_of

    def shape(self, key: str) -> tuple[int, ...]:
        return self._described(key)[0]

    def dtype(self, key: str) -> torch.dtype:
        return self._described(key)[1]
