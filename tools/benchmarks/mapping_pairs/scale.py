"""Two stacks of thousands of tensors: the mapper's seconds, and lit_wsl's on a size that it can finish."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.reports.tables import new_table, show
from mapping_pairs.rival import load, mapping_of

BLOCK = (
    ('norm1', nn.LayerNorm, (16,)),
    ('attn.qkv', nn.Linear, (16, 48)),
    ('attn.proj', nn.Linear, (16, 16)),
    ('norm2', nn.LayerNorm, (16,)),
    ('mlp.fc1', nn.Linear, (16, 64)),
)
"""Ten tensors that repeat, as in a transformer."""

RIVAL_SIZES = (100, 200, 400, 800)


def stack(tensors: int, seed: int, root: str = 'blocks') -> nn.Module:
    """Return a stack of ``tensors`` tensors in blocks of ten."""
    torch.manual_seed(seed)
    model = nn.Module()
    blocks = nn.ModuleList()
    for _ in range(tensors // (2 * len(BLOCK))):
        block = nn.Module()
        for name, layer, sizes in BLOCK:
            parent = block
            *path, leaf = name.split('.')
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(leaf, layer(*sizes))
        blocks.append(block)
    model.add_module(root, blocks)
    return model


def shuffled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the same tensors under another prefix, in another order."""
    names = list(state)
    random.Random(0).shuffle(names)  # noqa: S311
    return {f'module.encoder.layers.{name.removeprefix("blocks.")}': state[name] for name in names}


def ours(source: dict[str, Tensor], target: nn.Module) -> dict[str, str]:
    from kdplugin.weights.mapper import WeightMapper

    return WeightMapper.from_state_dict(source, target).suggest_mapping()


def timed(find: Any, *arguments: Any) -> dict[str, Any]:
    start = time.perf_counter()
    mapping = find(*arguments)
    seconds = time.perf_counter() - start
    right = sum(source.endswith('.' + target.split('.', 1)[1]) for source, target in mapping.items())
    return {'seconds': round(seconds, 3), 'right': right}


def measure_scale(checkouts: list[Path], tensors: int = 5000) -> dict[str, Any]:
    """Time the same names, then shuffled prefixes, and print the table."""
    source, target = stack(tensors, 0).state_dict(), stack(tensors, 1)
    result: dict[str, Any] = {
        'same names': {'tensors': tensors, **timed(ours, source, target)},
        'shuffled prefixes': {'tensors': tensors, **timed(ours, shuffled(source), target)},
    }
    for checkout in checkouts:
        mapper_class = load(checkout)
        for size in RIVAL_SIZES:
            models = stack(size, 0).state_dict(), stack(size, 1)
            measured = timed(lambda a, b: mapping_of(mapper_class, a, b), *models)  # noqa: B023
            result[f'lit_wsl {checkout.name}, same names, {size}'] = {'tensors': size, **measured}
            if measured['seconds'] > 60:
                break
    rows = new_table('stack', 'tensors', 'seconds', 'right', title='Time on long stacks')
    for name, row in result.items():
        rows.add_row(name, str(row['tensors']), f'{row["seconds"]:.2f}', str(row['right']))
    show(rows)
    return result
