"""What a model consists of, as its taps would see it: paths, shapes, strides, how often each module runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import RenderableType
from rich.text import Text
from torch import nn

from kdplugin.distill.first_step import first_step
from kdplugin.distill.probe import LARGE_SIZE, as_evaluated, synthetic_batch
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import tensors_of
from kdplugin.errors import ConfigError, TapError
from kdplugin.reports.tables import MISSING, new_table

MODES = ('loss', 'tensor', 'predict')
"""Tried in this order: what runs while the loss is computed is what a pair can tap."""
SHOWN = 3
"""Shapes of a module that are written out; a head that walks a pyramid has one for each level."""


@dataclass(frozen=True)
class Layer:
    """One module of a model.

    Args:
        path: as a tap names it.
        type: its class.
        shapes: of the tensors that it put out, for one image, in the order of the calls.
        stride: pixels of the image for each position of its first map (N, C, H, W); None for other outputs.
        parameters: all below it.
        fires: how often it runs in a forward pass; a tap on a module with 0 is an error.
    """

    path: str
    type: str
    shapes: tuple[tuple[int, ...], ...]
    stride: float | None
    parameters: int
    fires: int


def layers_of(model: nn.Module, sizes: Sequence[tuple[int, int]]) -> tuple[list[Layer], str]:
    """Run a model once and return its modules, and how it was run, such as "mode 'loss' on 256x256".

    Args:
        model: stays as it is.
        sizes: (H, W) of the image, tried in turn, and a large one after them.

    Raises:
        TapError: it runs on none of them.
    """
    failures = []
    for size, mode in itertools.product(dict.fromkeys([*sizes, LARGE_SIZE]), MODES):

        def run(size: tuple[int, int] = size, mode: str = mode) -> None:
            model(*synthetic_batch(model, size), mode=mode)

        try:
            return recorded(model, run, size), f'mode {mode!r} on {size[0]}x{size[1]}'
        except Exception as error:
            failures.append(f'{type(error).__name__}: {error}')
    raise TapError(f'Expected the model to run on a synthetic image but got {failures[0]}. Correct its config.')


def recorded(model: nn.Module, run: Callable[[], object], size: tuple[int, int] | None) -> list[Layer]:
    """Return the modules of a model as one run of it shows them.

    Args:
        model: stays as it is.
        run: calls it once.
        size: (H, W) of the image, for strides; None where it sees none.
    """
    seen: dict[str, list[tuple[int, ...]]] = {}
    calls: dict[str, int] = {}
    named = [(name, module) for name, module in model.named_modules() if name]
    hooks = [module.register_forward_hook(_recorder(name, seen, calls)) for name, module in named]
    try:
        with preserved_rng(), first_step(), torch.no_grad(), as_evaluated(model):
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return [_layer(name, module, seen, calls, size) for name, module in named]


def _recorder(
    name: str, seen: dict[str, list[tuple[int, ...]]], calls: dict[str, int]
) -> Callable[[nn.Module, Any, Any], None]:
    def record(module: nn.Module, args: Any, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        try:
            seen.setdefault(name, []).extend(tuple(tensor.shape) for tensor in tensors_of(output, name))
        except TapError:
            seen.setdefault(name, [])

    return record


def _layer(
    name: str,
    module: nn.Module,
    seen: dict[str, list[tuple[int, ...]]],
    calls: dict[str, int],
    size: tuple[int, int] | None,
) -> Layer:
    shapes = tuple(seen.get(name, ()))
    first = shapes[0] if shapes and len(shapes[0]) == 4 and shapes[0][-2] else None
    return Layer(
        name,
        type(module).__name__,
        shapes,
        size[0] / first[-2] if first and size else None,
        sum(value.numel() for value in module.parameters()),
        calls.get(name, 0),
    )


def select(layers: Sequence[Layer], pattern: str | None) -> list[Layer]:
    """Return the layers whose path or type a regular expression finds.

    Raises:
        ConfigError: the pattern is none, or finds nothing.
    """
    if pattern is None:
        return list(layers)
    try:
        chosen = [layer for layer in layers if re.search(pattern, layer.path) or re.search(pattern, layer.type)]
    except re.error as error:
        raise ConfigError(f'Expected a regular expression but got {pattern!r}: {error}. Correct --grep.') from None
    if not chosen:
        top = [layer.path for layer in layers if '.' not in layer.path]
        raise ConfigError(f'Expected layers that {pattern!r} finds but got none. The top-level modules are {top}.')
    return chosen


def layer_parts(layers: Sequence[Layer], owner: str, how: str) -> Iterator[RenderableType]:
    """Yield a table of layers, with what it was made from."""
    table = new_table('path', 'type', 'output', 'stride', 'parameters', 'fires', title=f'{owner}: {how}')
    for layer in layers:
        shapes = [str(list(shape)).replace(' ', '') for shape in layer.shapes[:SHOWN]]
        more = f' +{len(layer.shapes) - SHOWN}' if len(layer.shapes) > SHOWN else ''
        stride = MISSING if layer.stride is None else f'{layer.stride:g}'
        table.add_row(
            layer.path,
            layer.type,
            ' '.join(shapes) + more or MISSING,
            stride,
            f'{layer.parameters:,}',
            str(layer.fires),
        )
    yield table
    yield Text(f'{len(layers)} modules. Tap one that fires: tap=PATH, or student_tap=PATH and teacher_tap=PATH.')


def plain_layers(layers: Sequence[Layer]) -> list[dict[str, Any]]:
    """Return layers as plain values."""
    return [{**asdict(layer), 'shapes': [list(shape) for shape in layer.shapes]} for layer in layers]
