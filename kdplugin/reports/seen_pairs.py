"""What both sides of a pair have on one image, as maps that can be drawn and numbers that can be compared.

N image or window, A head, C channel, H W position on the grid of a level, R query token, L token attended to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdplugin.distill.layouts import Size, grid_of, prefix_of
from kdplugin.distill.methods import StepContext
from kdplugin.distill.methods.attention_kd import AttentionKD
from kdplugin.distill.methods.tap_loss import TapLoss
from kdplugin.distill.pairs import Pair
from kdplugin.losses.kl_divergence import softmax_divergence

SMALLEST = 1e-12


@dataclass(frozen=True)
class SeenLevel:
    """One level (or block) of a pair on one image.

    Args:
        title: which level it is.
        student: what is drawn, (H, W): energy of features in units of its mean, or attention in units of uniform
            attention.
        teacher: likewise, of the same size.
        shapes: of the compared tensors without the image's axis, student and teacher.
        numbers: by name; None where a number cannot be had, such as the error between other channels.
        by_head: of attention, the KL divergence of each head.
        heads: of attention, the teacher's head of each.
        mark: of attention, the query's place in the image as parts of its height and width, if that is known.
    """

    title: str
    student: Tensor
    teacher: Tensor
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    numbers: dict[str, float | None]
    by_head: tuple[float, ...] = ()
    heads: tuple[int, ...] = ()
    mark: tuple[float, float] | None = None


def seen_levels(pair: Pair, context: StepContext) -> list[SeenLevel]:
    """Return the levels of a pair for the first image of a batch.

    Args:
        pair: of the config.
        context: what student and teacher put out for the batch.

    Raises:
        TapError: see the pair's method.
    """
    compared = pair.method.compared(context)
    if isinstance(pair.method, AttentionKD):
        return [_attention(pair.method, number, *scores, context) for number, scores in enumerate(compared)]
    relations = isinstance(pair.method, TapLoss) and pair.method.loss.compares == 'relations'
    levels = []
    for number, (ours, theirs) in enumerate(compared):
        sides = [ours[0], theirs[0]]
        if relations and ours.dim() == 3:  # tokens as they come, channels last
            sides = [side.transpose(0, 1) for side in sides]
        elif not relations and ours.dim() == 4:
            sides = [without_padding(side, context) for side in sides]
        title = f'level {number + 1} of {len(compared)}' if len(compared) > 1 else ''
        levels.append(_features(title, sides[0], sides[1]))
    return levels


def without_padding(features: Tensor, context: StepContext) -> Tensor:
    """Return the cells of a map (C, H, W) that begin within the first image."""
    sample = context.data_samples[0] if context.data_samples else None
    if sample is None or context.image_size is None or 'img_shape' not in sample:
        return features
    cells = [
        max(1, math.ceil(length * inside / padded))
        for length, inside, padded in zip(features.shape[1:], sample.img_shape[:2], context.image_size, strict=True)
    ]
    return features[:, : cells[0], : cells[1]]


def energy(features: Tensor) -> Tensor:
    """Return the mean over channels of the squares, in units of its mean over positions; always (H, W).

    Args:
        features: (C, H, W); of tokens (C, L) and vectors (C,), H is 1.

    Example:
        >>> energy(torch.tensor([[[1.0, 1.0], [1.0, 3.0]]]))
        tensor([[0.3333, 0.3333],
                [0.3333, 3.0000]])
    """
    squares = features.square().mean(0) if features.dim() > 1 else features.square()
    squares = squares if squares.dim() == 2 else squares.reshape(1, -1)
    return squares / squares.mean().clamp_min(SMALLEST)


def relative_error(student: Tensor, teacher: Tensor) -> float:
    """Return |student - teacher| / |teacher|, Euclidean norms over all elements: 0 is equal, 1 is as far as zeros are.

    Example:
        >>> relative_error(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0]))
        0.8
    """
    error = torch.linalg.vector_norm((student - teacher).double())
    return float(error / torch.linalg.vector_norm(teacher.double()).clamp_min(SMALLEST))


def mean_cosine(student: Tensor, teacher: Tensor) -> float:
    """Return the mean over positions of the cosine between both sides' channels (C, ...)."""
    return float(torch.cosine_similarity(student.double(), teacher.double(), dim=0, eps=SMALLEST).mean())


def _features(title: str, ours: Tensor, theirs: Tensor) -> SeenLevel:
    """Compare two maps (C, H, W), tokens (C, L) or vectors (C,)."""
    same = ours.shape == theirs.shape
    maps = energy(ours), energy(theirs)
    numbers = {
        'relative error': relative_error(ours, theirs) if same else None,
        'cosine': mean_cosine(ours, theirs) if same else None,
        'energy error': relative_error(*maps) if maps[0].shape == maps[1].shape else None,
    }
    return SeenLevel(title, *maps, (tuple(ours.shape), tuple(theirs.shape)), numbers)


def _attention(method: AttentionKD, number: int, ours: Tensor, theirs: Tensor, context: StepContext) -> SeenLevel:
    """Compare scores before the softmax (N, A, R, L); the map is of the query at which both differ most."""
    images = len(context.data_samples or ()) or 1
    windows = len(ours) // images
    ours, theirs = ours[:windows], theirs[:windows]
    divergence = softmax_divergence(ours, theirs, dim=3)
    rows = [side.softmax(3).mean(1) for side in (ours, theirs)]
    attended, prefix, size = ours.shape[3], *_grid(ours.shape[3], windows, context.image_size)
    tokens = torch.arange(ours.shape[2]) * attended // ours.shape[2]
    by_query = divergence.mean(1).masked_fill(tokens.to(ours.device) < prefix, -1)
    window, query = divmod(int(by_query.argmax()), ours.shape[2])
    token = int(tokens[query]) - prefix
    maps = [attended * row[window, query, prefix:].reshape(size) for row in rows]
    place = divmod(token, size[1])
    where = f'window {window + 1} of {windows}, ' if windows > 1 else ''
    by_head = divergence.mean((0, 2)).tolist()
    named = method.student_taps[number]
    return SeenLevel(
        f'{named}\n{where}query {place[0] + 1}, {place[1] + 1}: the largest KL',
        maps[0],
        maps[1],
        (tuple(ours.shape[1:]), tuple(theirs.shape[1:])),
        {'relative error': relative_error(*rows), 'KL': float(divergence.mean())},
        tuple(by_head),
        tuple(range(len(by_head)) if method.heads is None else method.heads[number]),
        None if windows > 1 or size[0] == 1 else ((place[0] + 0.5) / size[0], (place[1] + 0.5) / size[1]),
    )


def _grid(tokens: int, windows: int, image_size: Size | None) -> tuple[int, Size]:
    """Return how many tokens precede a grid, and its (H, W): of a window a square, in a row where nothing fits."""
    if windows > 1:
        side = math.isqrt(tokens)
        return 0, (side, side) if side * side == tokens else (1, tokens)
    prefix = prefix_of(tokens, image_size)
    return (0, (1, tokens)) if prefix is None else (prefix, grid_of(tokens - prefix, image_size))


def mean_numbers(levels: Sequence[SeenLevel]) -> dict[str, float | None]:
    """Return the mean of each number over levels, None where a level lacks it or it is not finite."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for level in levels for name in level.numbers):
        values = [level.numbers.get(name) for level in levels]
        known = [value for value in values if value is not None and math.isfinite(value)]
        means[name] = sum(known) / len(known) if len(known) == len(values) else None
    return means
