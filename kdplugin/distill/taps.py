"""Catch what named modules put out during one forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.errors import TapError
from kdplugin.module_paths import find_module


def tensors_of(output: Any, path: str) -> list[Tensor]:
    """Flatten a module's output (tensor, sequence or dict of tensors) into a list of tensors.

    Raises:
        TapError: the output holds something else.
    """
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [tensor for item in output for tensor in tensors_of(item, path)]
    raise TapError(f'Expected tap {path!r} to put out tensors but got {type(output).__name__}. Tap a module inside it.')


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written to; tensors of ``torch.inference_mode`` do not count."""
    return 0 if tensor.is_inference() else tensor._version


class Caught:
    """Outputs by tap path, in call order, how many calls they are of, and whether something wrote into them later."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.tensors: dict[str, list[Tensor]] = {path: [] for path in paths}
        self.calls = dict.fromkeys(self.tensors, 0)
        self._versions: dict[str, list[int]] = {path: [] for path in self.tensors}

    def add(self, path: str, tensors: list[Tensor]) -> None:
        self.tensors[path] += tensors
        self.calls[path] += 1
        if not torch.compiler.is_compiling():
            self._versions[path] += [version_of(tensor) for tensor in tensors]

    def overwritten(self) -> frozenset[str]:
        """Return the taps whose tensors an in-place operation (a ReLU, say) has changed since."""
        return frozenset(
            path
            for path, tensors in self.tensors.items()
            if self._versions[path] and [version_of(tensor) for tensor in tensors] != self._versions[path]
        )


class Tap:
    """The forward hook of one path: it stays the same object under the same key, so that a compiled model stays valid.

    Args:
        path: of the module.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.key = f'kdplugin {path} {id(self)}'
        self.caught = Caught(())
        self.copies = False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        tensors = tensors_of(output, self.path)
        self.caught.add(self.path, [tensor.clone() for tensor in tensors] if self.copies else tensors)

    @contextlib.contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        """Catch what the module puts out in the block."""
        hooks: dict[Any, Any] = module._forward_hooks
        hooks[self.key] = self
        try:
            yield
        finally:
            del hooks[self.key]
            self.caught = Caught(())  # a kept hook must not keep the last step's tensors


@contextlib.contextmanager
def catch(
    model: nn.Module,
    paths: Iterable[str],
    owner: str,
    clone: frozenset[str] = frozenset(),
    taps: dict[str, Tap] | None = None,
) -> Iterator[Caught]:
    """Collect the outputs of modules while the block runs; hooks exist no longer than that.

    A module that is called several times (a head that walks a pyramid) yields its outputs in call order. Paths are
    resolved anew each time: converting SyncBN or compiling may have replaced a module since.

    Args:
        model: the model whose forward runs in the block.
        paths: dotted module paths.
        owner: how messages call the model.
        clone: paths whose output a later in-place operation overwrites; these are copied when caught.
        taps: keeps the hooks by path for the next call, for models that are compiled.

    Raises:
        TapError: a tap did not fire in the block.
        PathError: a path names no module.
    """
    caught = Caught(paths)
    with contextlib.ExitStack() as hooks:
        for path in caught.tensors:
            tap = Tap(path) if taps is None else taps.setdefault(path, Tap(path))
            tap.caught, tap.copies = caught, path in clone
            hooks.enter_context(tap.on(find_module(model, path, owner)))
        yield caught
    require_fired(caught, owner)


def require_fired(caught: Caught, owner: str) -> None:
    """Raise TapError, naming them, if taps put out nothing."""
    silent = [path for path, tensors in caught.tensors.items() if not tensors]
    if silent:
        raise TapError(
            f'Expected every tap of the {owner} to fire but {silent} did not run in this forward pass. '
            'Tap a module that is called while the loss is computed.'
        )
