"""Two stacks of thousands of tensors: the mapper's seconds, and lit_wsl's on a size that it can finish."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.reports.tables import new_table, show
from mapping_pairs.rival import load, mapping_of

RIVAL_SIZES = (100, 200, 400, 800)
PATIENCE = 30
"""Seconds after which no larger size is tried."""


def block(width: int) -> nn.Module:
    """Return ten tensors as they repeat in a transformer."""
    layers: dict[str, nn.Module] = {
        'norm1': nn.LayerNorm(width),
        'attn_qkv': nn.Linear(width, 3 * width),
        'attn_proj': nn.Linear(width, width),
        'norm2': nn.LayerNorm(width),
        'mlp_fc1': nn.Linear(width, 4 * width),
    }
    return nn.ModuleDict(layers)


def stack(tensors: int, seed: int) -> nn.Module:
    """Return one stack of ``tensors`` tensors."""
    torch.manual_seed(seed)
    return nn.ModuleDict({'blocks': nn.ModuleList(block(16) for _ in range(tensors // 10))})


def stacks(tensors: int, seed: int, names: list[str]) -> nn.Module:
    """Return as many stacks as there are names, each of another width."""
    torch.manual_seed(seed)
    depth = tensors // 10 // len(names)
    return nn.ModuleDict(
        {name: nn.ModuleList(block(8 + place) for _ in range(depth)) for place, name in enumerate(names)}
    )


def in_another_order(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the same tensors under another prefix, the file's order shuffled."""
    names = list(state)
    random.Random(0).shuffle(names)  # noqa: S311
    return {prefix + name.removeprefix('blocks.'): state[name] for name in names}


def other_names(names: list[str]) -> list[str]:
    """Return the same words for other stacks."""
    shuffled = list(names)
    random.Random(1).shuffle(shuffled)  # noqa: S311
    return shuffled


def ours(source: Mapping[str, Tensor], target: nn.Module) -> dict[str, str]:
    from kdplugin.weights.mapper import WeightMapper

    return WeightMapper.from_state_dict(source, target).suggest_mapping()


def timed(find: Callable[[], dict[str, str]], truth: Mapping[str, str]) -> dict[str, Any]:
    """Return seconds on the clock, seconds of computing, and how many source names go where they belong."""
    start, computing = time.perf_counter(), time.process_time()
    mapping = find()
    seconds = {'seconds': time.perf_counter() - start, 'cpu_seconds': time.process_time() - computing}
    right = sum(mapping.get(source) == target for source, target in truth.items())
    return {'tensors': len(truth), 'right': right, **{key: round(value, 3) for key, value in seconds.items()}}


def measure_ours(tensors: int) -> dict[str, Any]:
    """Time the same names, a prefix in a shuffled file, and fifty stacks whose names are dealt anew."""
    source, target = stack(tensors, 0).state_dict(), stack(tensors, 1)
    same = {name: name for name in source}
    prefixed = in_another_order(source, 'encoder.layers.')
    back = {name: 'blocks.' + name.removeprefix('encoder.layers.') for name in prefixed}
    words = [f'stage_{index}' for index in range(50)]
    dealt = other_names(words)
    many, anew = stacks(tensors, 0, words).state_dict(), stacks(tensors, 1, dealt)
    moved = {name: f'{dealt[words.index(name.split(".")[0])]}.{name.split(".", 1)[1]}' for name in many}
    return {
        'same names': timed(partial(ours, source, target), same),
        'other prefix, shuffled file': timed(partial(ours, prefixed, target), back),
        'prefixes of fifty stacks shuffled': timed(partial(ours, many, anew), moved),
    }


def measure_rival(checkout: Path) -> dict[str, Any]:
    """Time lit_wsl on the same names at growing sizes, as long as it finishes in time."""
    mapper_class = load(checkout)
    result = {}
    for size in RIVAL_SIZES:
        source, target = stack(size, 0).state_dict(), stack(size, 1)
        row = timed(partial(mapping_of, mapper_class, source, target), {name: name for name in source})
        result[f'lit_wsl {checkout.name}, same names'] = row
        if row['seconds'] > PATIENCE:
            break
    return result


def measure_scale(checkouts: list[Path], tensors: int = 5000) -> dict[str, Any]:
    """Measure kdplugin's mapper and each checkout of lit_wsl, and print the table."""
    result = measure_ours(tensors)
    for checkout in checkouts:
        result |= measure_rival(checkout)
    rows = new_table('stack', 'tensors', 'right', 'seconds', 'of computing', title='Time on long stacks')
    for name, row in result.items():
        cells = (str(row['tensors']), str(row['right']), f'{row["seconds"]:.2f}', f'{row["cpu_seconds"]:.2f}')
        rows.add_row(name, *cells)
    show(rows)
    return result
