"""What activations say about axis groups and layers, from a few batches through the source model."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import find_module
from kdplugin.weights.mapping.execution import call, tensors_in, untouched
from kdplugin.weights.plan import AxisGroup, ProjectionPlan


def measure_moments(model: nn.Module, plan: ProjectionPlan, batches: Iterable[Any]) -> dict[str, Tensor]:
    """Return the second moments of activations by axis group, for ``apply_plan``.

    They are taken where layers read: at the norms of a rotated stream, else at the layers with side 'in'. All of a
    group's places count alike. Groups whose layers do not run as modules are left out; their bases come from weights
    (the output projection of ``torch.nn.MultiheadAttention`` is such a one).

    Args:
        model: the source, under the names of the plan; it is left as it was.
        batches: what it is called with: tensors, tuples of arguments or dicts of them.

    Returns:
        E[x x^T] [D, D] of a rotated stream, E[x^2] [D] of hidden units, E[x x^T] [H, S, S] of heads.

    Raises:
        CheckpointError: nothing ran.
    """
    sums: dict[str, dict[str, Tensor]] = {}
    groups = {n: g for n, g in plan.groups.items() if g.method == 'svd' and g.target_width < g.source_width}
    with ExitStack() as stack:
        for name, group in groups.items():
            for path in _places(group):
                if _has(model, path):
                    place = sums.setdefault(name, {})
                    hook = _adder(place, path, group)
                    handle = find_module(model, path, 'source').register_forward_pre_hook(hook)
                    stack.callback(handle.remove)
        stack.enter_context(untouched(model))
        for batch in batches:
            call(model, batch)
    found = {name: _mean(list(place.values())) for name, place in sums.items() if place}
    if groups and not found:
        raise CheckpointError(
            f'Expected the layers of {len(groups)} axis groups to run but none did. Give batches, and the model whose '
            'names the plan has.'
        )
    return found


def _places(group: AxisGroup) -> list[str]:
    """Return the paths of the modules whose inputs are the axis of a group."""
    readers = [name.rpartition('.')[0] for name, _, side in group.members if side == 'in']
    norms = [name.rpartition('.')[0] for name, _, side in group.members if side == 'gain']
    return list(dict.fromkeys(norms if group.kind == 'residual' and norms else readers))


def _has(model: nn.Module, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def _adder(place: dict[str, Tensor], path: str, group: AxisGroup) -> Any:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        x = inputs[0].detach()
        channel = x.ndim - 1 if x.shape[-1] == group.source_width else 1
        if x.ndim > channel and x.shape[channel] == group.source_width:
            moment = _moment(x.movedim(channel, 0).flatten(1).float(), group)
            place[path] = place[path] + moment if path in place else moment

    return hook


def _moment(rows: Tensor, group: AxisGroup) -> Tensor:
    """Return the sum of second moments of activations [D, n]."""
    if group.kind == 'hidden':
        return rows.square().sum(1).double()
    if group.kind == 'heads':
        heads = rows.unflatten(0, (-1, group.unit))
        return (heads @ heads.transpose(1, 2)).double()
    return (rows @ rows.T).double()


def _mean(moments: list[Tensor]) -> Tensor:
    """Return the mean over places, each scaled to a total energy of one."""

    def energy(moment: Tensor) -> Tensor:
        return moment.sum() if moment.ndim == 1 else moment.diagonal(dim1=-2, dim2=-1).sum()

    return torch.stack([moment / energy(moment).clamp_min(1e-30) for moment in moments]).mean(0)


def layer_similarity(model: nn.Module, stack: str, batches: Iterable[Any]) -> Tensor:
    """Return how alike the output of each layer of a stack is to its input: the mean cosine over tokens [L].

    1 less this is the block influence of ShortGPT (Men et al., 2024): layers that are most alike to nothing go first.

    Args:
        stack: path of the list of layers: 'blocks'.

    Raises:
        CheckpointError: a layer did not run, or does not keep the shape of its input.
    """
    layers = list(find_module(model, stack, 'source').children())
    sums, counts = torch.zeros(len(layers)), torch.zeros(len(layers))
    with ExitStack() as hooks:
        for index, layer in enumerate(layers):

            def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any, index: int = index) -> None:
                before, after = next(tensors_in(list(inputs)), None), next(tensors_in(output), None)
                if before is not None and after is not None and before.shape == after.shape:
                    sums[index] += F.cosine_similarity(before.float(), after.float(), dim=-1).mean()
                    counts[index] += 1

            hooks.callback(layer.register_forward_hook(hook).remove)
        hooks.enter_context(untouched(model))
        for batch in batches:
            call(model, batch)
    missing = [f'{stack}.{index}' for index, count in enumerate(counts) if not count]
    if missing or not layers:
        raise CheckpointError(
            f'Expected each layer of {stack} to run and to keep the shape of its input but '
            f'{", ".join(missing) or "none"} did not. Give batches, and the path of a list of layers.'
        )
    return sums / counts
