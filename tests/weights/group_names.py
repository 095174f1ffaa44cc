"""The groups that a layout gets when all its widths are halved, for tests of what shares a basis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from small_nets import same_names
from torch import Tensor

from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axis_groups import with_projection


def halved(shapes: Mapping[str, Sequence[int]], keep: Sequence[int] = (), **options: Any) -> ProjectionPlan:
    """Return the plan from these tensors to ones of half the size, but for sizes of 1 and those to keep."""
    source = {name: torch.empty(tuple(shape), device='meta') for name, shape in shapes.items()}

    def half(value: Tensor) -> Tensor:
        small = [n if n in keep or (n < 8 and i > 0) else n // 2 for i, n in enumerate(value.shape)]
        return value.new_empty([max(n, 1) for n in small])

    target = {name: half(value) for name, value in source.items()}
    return with_projection(same_names(source, target), source, **{'method': 'truncate', **options})


def groups_of(plan: ProjectionPlan) -> dict[str, list[str]]:
    """Return 'tensor:axis:side' of every projection, by group."""
    found: dict[str, list[str]] = {}
    for entry in plan.entries:
        for piece in entry.pieces:
            for step in piece.steps:
                if step.op == 'project':
                    where = f'{entry.target}:{step.args["dim"]}:{step.args["side"]}'
                    found.setdefault(step.args['group'], []).append(where)
    return found
