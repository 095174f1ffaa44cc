"""Run a model no further than its deepest tapped layer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdplugin.distill.first_step import first_step
from kdplugin.distill.probe import ProbeResult, few_proposals, synthetic_batch
from kdplugin.distill.rng import preserved_rng
from kdplugin.distill.taps import Caught, catch, require_fired, tensors_of
from kdplugin.errors import TapError
from kdplugin.module_paths import find_module

IMAGES = 2
"""Images of the batch that is compared with the probe's single one."""


class _Enough(BaseException):
    """Leaves a model's forward; no ``except Exception`` of the model gets hold of it."""


@contextlib.contextmanager
def catch_until(
    model: nn.Module, calls: Mapping[str, int], owner: str, clone: frozenset[str] = frozenset()
) -> Iterator[Caught]:
    """Collect the outputs of modules as ``taps.catch`` does, and leave the block once all of them have run.

    Args:
        model: the model whose forward runs in the block; nothing of it runs after the last call counted here.
        calls: by dotted module path, how often the module runs in one forward pass of the model.
        owner: how messages call the model.
        clone: paths whose output a later in-place operation overwrites; these are copied when caught, but for the last
            call, which nothing follows.

    Raises:
        TapError: a module ran more or less often, or not at all.
        PathError: a path names no module.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 5))
        >>> with catch_until(model, {'1': 1}, 'model') as caught:
        ...     _ = model(torch.zeros(1, 2))
        >>> [tuple(tensor.shape) for tensor in caught.tensors['1']]
        [(1, 4)]
    """
    caught, left = Caught(calls), dict(calls)
    with contextlib.ExitStack() as hooks:
        for path in calls:

            def keep(module: nn.Module, args: Any, output: Any, path: str = path) -> None:
                left[path] -= 1
                enough = all(count <= 0 for count in left.values())
                tensors = tensors_of(output, path)
                caught.add(path, [tensor.clone() for tensor in tensors] if path in clone and not enough else tensors)
                if enough:
                    raise _Enough

            hooks.enter_context(find_module(model, path, owner).register_forward_hook(keep))
        with contextlib.suppress(_Enough):
            yield caught
    require_fired(caught, owner)
    ran = caught.calls
    wrong = [f'{path!r} {ran[path]} times instead of {calls[path]}' for path in calls if ran[path] != calls[path]]
    if wrong:
        raise TapError(
            f'Expected every tap of the {owner} to run as often as in the probe but {", ".join(wrong)}. '
            'Tap modules that run equally often for all images.'
        )


@dataclass(frozen=True)
class Steady:
    """What a batch of several images has in common with the probe's single one.

    Args:
        calls: by tap, how often it runs in one forward pass; None if a tap put out another number of tensors than in
            the probe, so that nobody can know when it has run for the last time.
        by_image: every tensor has one entry for each image in its first dimension.
        inputs: the batch.
        samples: its data samples.
        tensors: by tap, what it put out.
    """

    calls: dict[str, int] | None
    by_image: bool
    inputs: Tensor
    samples: list[Any]
    tensors: dict[str, list[Tensor]]


def find_steady(
    model: nn.Module, paths: Sequence[str], probed: ProbeResult, owner: str, sizes: Sequence[tuple[int, int]]
) -> Steady:
    """Run a model on a batch of two images, wider ones where the model takes them, and compare with its probe.

    Args:
        model: in eval mode.
        paths: the taps.
        probed: what they put out for one image.
        owner: how messages call the model.
        sizes: (H, W) to try, before the one at which the probe succeeded.

    Raises:
        Exception: whatever the model raises when no size suits it; then only a single image runs.
    """
    failure: Exception | None = None
    sizes = list(dict.fromkeys([*sizes, *([] if probed.size is None else [probed.size])]))
    for size in [(height, width * 3 // 2) for height, width in sizes] + sizes:
        with preserved_rng(), first_step(), torch.no_grad(), few_proposals(model, paths):
            inputs, samples = synthetic_batch(model, size, IMAGES)
            try:
                with catch(model, paths, owner, clone=probed.overwritten) as caught:
                    model(inputs, samples, mode=probed.mode)
            except Exception as error:
                failure = error
                continue
        return _compare(caught.calls, probed.shapes, caught.tensors, inputs, samples)
    raise failure or ValueError('no size to try')


def _compare(
    calls: dict[str, int],
    single: Mapping[str, Sequence[tuple[int, ...]]],
    tensors: dict[str, list[Tensor]],
    inputs: Tensor,
    samples: list[Any],
) -> Steady:
    same = all(len(tensors[path]) == len(single[path]) for path in calls)
    by_image = same and all(_grows(single[path], tensors[path]) for path in calls)
    return Steady(calls if same else None, by_image, inputs, samples, tensors)


def _grows(single: Sequence[tuple[int, ...]], several: Sequence[Tensor]) -> bool:
    """Tell whether each first dimension is the number of images."""
    return all(one[:1] == (1,) and tensor.shape[:1] == (IMAGES,) for one, tensor in zip(single, several, strict=True))
