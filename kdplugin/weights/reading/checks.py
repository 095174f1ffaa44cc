"""What weights must be before anything is computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.source import open_source

SHOWN = 5

QUANTISED = {torch.int8, torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4}
"""Integers that stand for real numbers through a scale kept elsewhere."""


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Demand that no tensor holds NaN or infinity; reads all of them, one at a time.

    Args:
        weights: a source or a state dict. Tensors on the meta device have no values and pass.

    Raises:
        CheckpointError: some do; the first are named with their counts.
    """
    source = open_source(weights)
    bad = []
    for key in source:
        if source.dtype(key).is_floating_point or source.dtype(key).is_complex:
            value = source[key]
            value = value.float() if value.element_size() == 1 else value
            if not value.is_meta and not torch.isfinite(value).all():
                bad.append(f'{key} ({int(value.isnan().sum())} NaN, {int(value.isinf().sum())} infinite)')
    if bad:
        raise CheckpointError(
            f'Expected finite weights in {source.name} but got NaN or infinity in {len(bad)} of {len(source)} tensors: '
            f'{_first(bad)}. Use an earlier checkpoint.'
        )


def require_floating(weights: Mapping[str, Tensor], names: Iterable[str] | None = None) -> None:
    """Demand that weights are stored as the numbers they are, not as 8-bit or packed codes; reads no values.

    Integer buffers such as counters, indices and masks pass: what is refused is any tensor of an 8-bit float or
    a quantised type, and integers called ``weight`` (packed ones: GPTQ, bitsandbytes).

    Args:
        weights: a source or a state dict.
        names: those of its tensors that are asked about; all of them by default.

    Raises:
        CheckpointError: some are; the first are named with their types.
    """
    source = open_source(weights)
    asked = list(source if names is None else names)
    bad = [
        f'{key} ({str(source.dtype(key)).removeprefix("torch.")})' for key in asked if _is_code(key, source.dtype(key))
    ]
    if bad:
        raise CheckpointError(
            f'Expected weights of a floating type in {source.name} but got quantised ones in {len(bad)} of '
            f'{len(asked)} tensors: {_first(bad)}. Use the checkpoint from before quantisation.'
        )


def _is_code(key: str, dtype: torch.dtype) -> bool:
    if dtype.is_floating_point:
        return dtype.itemsize == 1
    named = key.rpartition('.')[2] in ('weight', 'qweight')
    return dtype in QUANTISED or (named and not dtype.is_complex)


def _first(bad: list[str]) -> str:
    return ', '.join(bad[:SHOWN]) + (f' and {len(bad) - SHOWN} more' if len(bad) > SHOWN else '')
