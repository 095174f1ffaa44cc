"""Which layers of a deeper source a shallower target takes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.tensor_source import TensorSource

WAYS = ('uniform', 'first', 'last', 'similarity')
SKETCH = 65_536
"""Values of a layer's tensor that ``weight_similarity`` looks at, evenly spread."""


def choose_layers(
    source_depth: int, target_depth: int, how: str | Sequence[int], similarity: Tensor | None = None
) -> tuple[int, ...]:
    """Return the source's layer for each layer of the target, strictly increasing.

    uniform: evenly spread with both ends, i (L - 1) / (l - 1) rounded to the nearest, halves up; one layer is the
    first. first, last: these. A list: as it is, after checks.
    similarity: drops what changes least. ``similarity`` [L], how alike each layer's output is to its input
    (``kdplugin.weights.projection.moments.layer_similarity``): the most alike ones go, ShortGPT (Men et al., 2024).
    ``similarity`` [L, L], how alike two layers are (``weight_similarity``): of the most alike neighbours among those
    left, the later one goes, or the earlier if the later is the last; ends stay as long as more than one is left.

    Raises:
        ConfigError: the target is deeper, or the choice is unknown or not of these depths.

    Example:
        >>> choose_layers(12, 4, 'uniform'), choose_layers(12, 3, [0, 4, 11])
        ((0, 4, 7, 11), (0, 4, 11))
    """
    if not 1 <= target_depth <= source_depth:
        raise ConfigError(
            f'Expected a target of 1 to {source_depth} layers for a source of {source_depth} but got {target_depth}. '
            'Take a deeper source, or leave the added layers at their initialisation.'
        )
    if not isinstance(how, str):
        return _listed(source_depth, target_depth, how)
    if how == 'first':
        return tuple(range(target_depth))
    if how == 'last':
        return tuple(range(source_depth - target_depth, source_depth))
    if how == 'uniform':
        steps = max(target_depth - 1, 1)
        return tuple(math.floor(i * (source_depth - 1) / steps + 0.5) for i in range(target_depth))
    if how == 'similarity':
        return _least_alike(source_depth, target_depth, similarity)
    raise ConfigError(
        f'Expected layers of {", ".join(WAYS)} or a list of indices but got {how!r}.{did_you_mean(how, WAYS)} '
        'Choose one of these.'
    )


def _listed(source_depth: int, target_depth: int, indices: Sequence[int]) -> tuple[int, ...]:
    listed = tuple(indices)
    whole = all(isinstance(index, int) and 0 <= index < source_depth for index in listed)
    if len(listed) != target_depth or not whole or sorted({*listed}) != list(listed):
        raise ConfigError(
            f'Expected {target_depth} increasing layers from 0 to {source_depth - 1} but got {list(listed)}. '
            'Name one source layer for each layer of the target.'
        )
    return listed


def _least_alike(source_depth: int, target_depth: int, similarity: Tensor | None) -> tuple[int, ...]:
    if similarity is None or similarity.shape not in ((source_depth,), (source_depth, source_depth)):
        found = 'none' if similarity is None else str(tuple(similarity.shape))
        raise ConfigError(
            f'Expected similarities of {source_depth} layers, or of {source_depth} x {source_depth} pairs, but got '
            f'{found}. Measure them with layer_similarity or weight_similarity.'
        )
    kept = list(range(source_depth))
    if similarity.ndim == 1:
        order = similarity.argsort(descending=True, stable=True).tolist()
        return tuple(sorted(set(kept) - set(order[: source_depth - target_depth])))
    while len(kept) > target_depth:
        alike = [float(similarity[a, b]) for a, b in itertools.pairwise(kept)]
        later = alike.index(max(alike)) + 1
        kept.pop(later - 1 if later == len(kept) - 1 and later > 1 else later)
    return tuple(kept)


def weight_similarity(source: TensorSource, stack: str) -> Tensor:
    """Return how alike the layers of a stack are by their weights: the mean cosine of their tensors [L, L].

    Of each tensor up to 65,536 evenly spread values are compared. Trained layers are nearly orthogonal to each other,
    so this says little; activations say more where there is data.

    Args:
        stack: what comes before the layer's number: 'blocks', 'encoder.layer'.

    Raises:
        CheckpointError: the source has no such stack.
    """
    pattern = re.compile(re.escape(stack) + r'\.(\d+)\.(.+)')
    layers: dict[str, dict[int, str]] = {}
    for name in source:
        found = pattern.fullmatch(name)
        if found and source.dtype(name).is_floating_point:
            layers.setdefault(found[2], {})[int(found[1])] = name
    depth = max((index for tensors in layers.values() for index in tensors), default=-1) + 1
    if not depth:
        known = sorted({name[: number.start()] for name in source for number in re.finditer(r'\.\d+\.', name)})
        raise CheckpointError(
            f'Expected layers {stack}.0, {stack}.1, ... in {source.name} but there are none.'
            f'{did_you_mean(stack, known)} Name what precedes the number.'
        )
    total, counts = torch.zeros(depth, depth), torch.zeros(depth, depth)
    for tensors in layers.values():
        sketches = {index: _sketch(source[name]) for index, name in tensors.items()}
        for a, one in sketches.items():
            for b, other in sketches.items():
                if one.shape == other.shape:
                    total[a, b] += torch.nn.functional.cosine_similarity(one, other, dim=0)
                    counts[a, b] += 1
    return total / counts.clamp_min(1)


def _sketch(tensor: Tensor) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[:: max(1, -(-len(flat) // SKETCH))].float()
