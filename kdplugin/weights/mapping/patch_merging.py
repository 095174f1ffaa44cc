"""In which order a patch-merging layer (Swin) puts four neighbours side by side, observed on the layer itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.weights.mapping.execution import untouched

SIDE = 4
CORNERS = (0, 1, SIDE, SIDE + 1)
"""Which tokens of a SIDE x SIDE map become the first merged token."""


def merge_order(model: nn.Module, norm: str) -> list[int] | None:
    """Return where each channel of merged 2x2 patches comes from.

    Args:
        model: contains a layer that takes C channels and begins with a norm over 4C.
        norm: path of that norm; its parent module takes the patches.

    Returns:
        For each of the 4C channels ``4 * channel + corner`` of the value it holds (corners row by row), or None if the
        layer takes its patches in a way that is not known here: [N, H, W, C], [N, H * W, C] with (H, W), or
        [N, C, H, W].
    """
    try:
        layer, first = model.get_submodule(norm.rpartition('.')[0]), model.get_submodule(norm)
    except AttributeError:
        return None
    width = next((len(value) for value in first.parameters() if value.ndim == 1), 0)
    if width < 4 or width % 4:
        return None
    for tokens, arguments in _inputs(width // 4, next(first.parameters())):
        order = _observe(layer, first, tokens, arguments)
        if order is not None:
            return order
    return None


def _inputs(channels: int, like: Tensor) -> Iterator[tuple[Tensor, tuple[Any, ...]]]:
    """Yield numbered tokens [SIDE * SIDE, C] and ways to hand them to a layer."""
    count = SIDE * SIDE * channels
    tokens = torch.arange(1.0, count + 1.0, device=like.device).reshape(SIDE * SIDE, channels)
    yield tokens, (tokens.reshape(1, SIDE, SIDE, channels),)
    yield tokens, (tokens[None], (SIDE, SIDE))
    yield tokens, (tokens.reshape(1, SIDE, SIDE, channels).permute(0, 3, 1, 2),)


def _observe(layer: nn.Module, norm: nn.Module, tokens: Tensor, arguments: tuple[Any, ...]) -> list[int] | None:
    seen: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0].detach())

    handle = norm.register_forward_pre_hook(keep)
    try:
        with untouched(layer):
            layer(*arguments)
    except Exception:  # not the way this layer takes its input
        return None
    finally:
        handle.remove()
    if not seen or seen[0].numel() != tokens.numel():
        return None
    channels = tokens.shape[1]
    numbers = (seen[0].reshape(-1, 4 * channels)[0] - 1).long().tolist()
    places = [divmod(number, channels) for number in numbers]
    if len(set(places)) < len(places) or any(token not in CORNERS for token, _ in places):
        return None
    return [4 * channel + CORNERS.index(token) for token, channel in places]
