"""How much memory a training step takes on a GPU, estimated from one forward pass on the CPU.

The pass counts the bytes that autograd keeps, at two image sizes; in between and beyond they grow with the pixels of
the batch. What the teacher keeps is what its taps put out. Nothing here was compared with a GPU: kernels, fragmentation
and the allocator's blocks come on top, for which a share is added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import torch
from mmengine.config import Config
from rich.console import RenderableType
from rich.text import Text
from torch import Tensor, nn

from kdplugin.distill.distiller import distillation_of
from kdplugin.distill.first_step import first_step
from kdplugin.distill.probe import PROBE_SIZE, probe_sizes, synthetic_batch
from kdplugin.distill.rng import preserved_rng
from kdplugin.errors import TapError
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.optimizers import STATES, gigabytes
from kdplugin.preflight.pipelines import all_steps, pipelines_of
from kdplugin.preflight.rates import optimizer_of
from kdplugin.reports.tables import new_table

CONTEXT = 600_000_000
"""Bytes that a process takes on a GPU before it does anything."""
SPARE = 0.15
"""Share of the activations that is added for workspaces of kernels and for fragmentation."""
HALF = 0.6
"""Activations under autocast in 16 bits, as a part of those in 32: normalisation and losses stay in 32."""
SIZES = (PROBE_SIZE, (384, 384))
BATCHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Estimate:
    """The peak of a training step.

    Args:
        size: (H, W) of the padded images.
        batch: images per GPU.
        weights: bytes of student, adapters and teachers, gradients, optimizer and averages.
        activations: bytes of what autograd keeps and of what the teacher puts out.
        total: bytes, with the process's own and the spare share.
    """

    size: tuple[int, int]
    batch: int
    weights: int
    activations: int
    total: int


def weight_bytes(config: Config, student: nn.Module) -> int:
    """Return the bytes of everything whose size does not depend on the images."""
    values = list(student.parameters())
    size = sum(value.numel() * value.element_size() for value in (*values, *student.buffers()))
    trained = sum(value.numel() * 4 for value in values if value.requires_grad)
    states = STATES.get(kind_of(optimizer_of(config) or {}), 2)
    averaged = size if any('EMA' in kind_of(hook) for _, hook in hooks_of(config)) else 0
    distillation = distillation_of(student)
    teachers = distillation.teachers.values() if distillation is not None else ()
    theirs = sum(
        value.numel() * value.element_size() for teacher in teachers for value in teacher.module.state_dict().values()
    )
    return size + trained * (1 + states) + averaged + theirs


class _Kept:
    """Bytes of the tensors that autograd keeps, each storage once, parameters left out."""

    def __init__(self, model: nn.Module) -> None:
        self._known = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
        self.total = 0
        self.largest = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.total += storage.nbytes()
            self.largest = max(self.largest, storage.nbytes())
        return tensor


def activation_bytes(student: Any, size: tuple[int, int], batch: int) -> int:
    """Return the bytes that one training step keeps, with the largest tensor twice for its gradient."""
    student.train()
    kept = _Kept(student)
    inputs, samples = synthetic_batch(student, size, batch)
    with preserved_rng(), first_step(), torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        losses = student(inputs, samples, mode='loss')
    del losses
    return kept.total + 2 * kept.largest + inputs.nbytes


@dataclass(frozen=True)
class Growth:
    """Bytes of activations: ``fixed`` for each image, and ``per_pixel``."""

    fixed: float
    per_pixel: float

    def at(self, size: tuple[int, int], batch: int) -> int:
        return max(0, round(batch * (self.fixed + self.per_pixel * size[0] * size[1])))


def growth_of(student: nn.Module) -> Growth:
    """Measure a student, distilled or not, at two sizes; models of one size are measured there alone.

    Raises:
        TapError: it takes a step at none of them.
    """
    measured: dict[tuple[int, int], float] = {}
    failures = []
    own = probe_sizes(student)[-1]
    for size in dict.fromkeys([*SIZES, own]):
        if len(measured) == 2:
            break
        try:
            measured[size] = activation_bytes(student, size, 2) / 2
        except Exception as error:
            failures.append(f'{type(error).__name__}: {error}')
    if not measured:
        raise TapError(
            f'Expected the student to take a step but got {failures[0]}. Run the checks without --memory first.'
        )
    (first, low), *rest = measured.items()
    if not rest:
        return Growth(0.0, low / (first[0] * first[1]))
    second, high = rest[0]
    slope = (high - low) / (second[0] * second[1] - first[0] * first[1])
    return Growth(low - slope * first[0] * first[1], slope)


def training_sizes(config: Config) -> list[tuple[int, int]]:
    """Return the (H, W) that the training pipeline makes, padded to multiples of 32; the probe's where it says none."""
    found: list[tuple[int, int]] = []
    for _, steps in pipelines_of(config, 'train_dataloader'):
        for step in all_steps(steps):
            crop, scale = step.get('crop_size'), step.get('scale') or step.get('img_scale')
            if _is_pair(crop):
                found.append((_padded(crop[0]), _padded(crop[1])))
            elif _is_pair(scale) and 'Resize' in kind_of(step):
                found.append((_padded(min(scale)), _padded(max(scale))))
    crops = [size for size in found if size]
    return list(dict.fromkeys(crops[-1:] or [PROBE_SIZE]))


def _is_pair(value: Any) -> TypeGuard[Sequence[int]]:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(one, int) for one in value)


def _padded(number: int) -> int:
    return -(-number // 32) * 32


def estimate(
    config: Config, student: nn.Module, sizes: Sequence[tuple[int, int]], batches: Sequence[int]
) -> list[Estimate]:
    """Estimate the peak of a training step for every size and batch."""
    weights = weight_bytes(config, student)  # before the teacher runs, which puts folded weights aside
    growth = growth_of(student)
    wrapper = config.get('optim_wrapper')
    amp = isinstance(wrapper, Mapping) and 'amp' in kind_of(wrapper).lower()
    result = []
    for size in sizes:
        for batch in batches:
            activations = round(growth.at(size, batch) * (HALF if amp else 1.0))
            total = round(CONTEXT + weights + activations * (1 + SPARE))
            result.append(Estimate(size, batch, weights, activations, total))
    return result


def memory_parts(estimates: Sequence[Estimate], batch: int | None) -> list[RenderableType]:
    """Return a table of estimates; the config's own batch is marked."""
    table = new_table('image', 'batch', 'weights and states', 'activations', 'peak, estimated')
    for one in estimates:
        mark = ' *' if one.batch == batch else ''
        table.add_row(
            f'{one.size[0]}x{one.size[1]}', f'{one.batch}{mark}', gigabytes(one.weights), gigabytes(one.activations),
            gigabytes(one.total),
        )  # fmt: skip
    notes = (
        "* the config's own batch. Estimated from a forward pass on the CPU, not measured on a GPU: leave 20 % room."
    )
    return [table, Text(notes)]


def plain_estimates(estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Return estimates as plain values."""
    return [{**asdict(one), 'size': list(one.size)} for one in estimates]
