"""Do the strides that a detector's heads are told agree with the maps that they get?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from kdplugin.preflight.findings import Findings

FAR = 1.5
"""Pyramids halve their maps, and edges are rounded up: strides that differ by more are of another level."""
LEAST = 4
"""Positions on a side below which rounding hides the stride."""
Maps = dict[str, list[int]]


@contextlib.contextmanager
def seen_maps(student: nn.Module) -> Iterator[Maps]:
    """Collect, in the block, the heights of the maps that every head with strides works on, by its path."""
    seen: Maps = {}
    hooks = [
        module.register_forward_pre_hook(_recorder(seen, name))
        for name, module in student.named_modules()
        if _told(module)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(seen: Maps, name: str) -> Callable[[nn.Module, Any], None]:
    def record(module: nn.Module, args: Any) -> None:
        maps = args[0] if args else None
        if isinstance(maps, list | tuple) and all(isinstance(one, Tensor) and one.dim() == 4 for one in maps):
            seen.setdefault(name, [one.shape[-2] for one in maps])

    return record


def _told(module: Any) -> tuple[str, Sequence[float]] | None:
    """Return how a head's config calls its strides, and the vertical ones."""
    extractor = getattr(module, 'featmap_strides', None)
    if isinstance(extractor, list | tuple):
        return 'featmap_strides', extractor
    own = getattr(getattr(module, 'prior_generator', None), 'strides', None)
    if isinstance(own, list | tuple):
        return 'anchor_generator.strides', [one[1] if isinstance(one, list | tuple) else one for one in own]
    return None


def check_strides(found: Findings, where: str, student: nn.Module, seen: Maps, height: int) -> None:
    """Every head is told the strides of its maps; anchors and boxes are in the wrong place otherwise.

    Args:
        found: collects the findings.
        where: path of the student in the config.
        student: the model.
        seen: what ``seen_maps`` collected in a step.
        height: of the images of that step, in pixels.
    """
    modules = dict(student.named_modules())
    for name, maps in seen.items():
        key, told = _told(modules[name]) or ('', ())
        true = [height / one for one in maps][: len(told)]
        pairs = [(a, b) for a, b, side in zip(told, true, maps, strict=False) if side >= LEAST]
        if any(max(a, b) / min(a, b) > FAR for a, b in pairs if min(a, b) > 0):
            found.error(
                f'{where}.{name}.{key}',
                f'Expected the strides of the maps, about {[round(one) for one in true]}, but got {list(told)}. '
                'Anchors or boxes would lie in the wrong place: correct the strides, or the maps of the neck.',
            )
