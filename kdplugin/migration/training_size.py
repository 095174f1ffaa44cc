"""The size of the images that a recipe trains on, as far as its config says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize')


def training_size(model: Mapping[str, Any], loader: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Return height and width of a padded training batch, None where the config does not say.

    mmseg crops to ``data_preprocessor.size``. mmdet resizes to at most ``scale`` = (long, short) and pads to multiples
    of ``pad_size_divisor``; a landscape image that fills the scale is taken, of several scales the largest.

    Example:
        >>> loader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(1333, 800), keep_ratio=True)]))
        >>> training_size(dict(data_preprocessor=dict(pad_size_divisor=32)), loader)
        (800, 1344)
    """
    preprocessor = model.get('data_preprocessor') or {}
    size = preprocessor.get('size')
    if size is not None:
        return (size, size) if isinstance(size, int) else (size[0], size[1])
    scales = [tuple(scale) for transform in _transforms(loader) for scale in _scales(transform)]
    if not scales:
        return None
    divisor = preprocessor.get('pad_size_divisor') or 1
    long, short = max(scales, key=lambda scale: scale[0] * scale[1])
    return -(-min(long, short) // divisor) * divisor, -(-max(long, short) // divisor) * divisor


def _transforms(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the resizing transforms anywhere in a loader's config: data sets wrap each other."""
    if isinstance(value, Mapping):
        if str(value.get('type')).rsplit('.', 1)[-1] in RESIZES:
            yield value
        for item in value.values():
            yield from _transforms(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _transforms(item)


def _scales(transform: Mapping[str, Any]) -> list[Any]:
    found = transform.get('scale') or transform.get('scales') or []
    return [found] if found and isinstance(found[0], int) else list(found)
