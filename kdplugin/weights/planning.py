"""From a source and a model to a plan: which tensors, which layers, which widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axis_groups import METHODS, with_projection
from kdplugin.weights.projection.head_counts import HeadDim, Heads
from kdplugin.weights.projection.layers import WAYS
from kdplugin.weights.reading.source import open_source

ANY_WIDTH = 0.999
"""A shape tolerance that lets every width through."""
BETTER = 1.1
"""How much more has to match with other widths before equal shapes are no longer taken for the answer."""


def make_plan(
    source: Any,
    target: nn.Module,
    *,
    method: str = 'svd',
    layers: str | Sequence[int] = 'uniform',
    dummy_input: Any = None,
    threshold: float = 0.6,
    heads: Heads = None,
    head_dim: HeadDim = None,
) -> ProjectionPlan:
    """Plan how a model is filled from a source, whatever its names, depth and widths.

    Layers are matched by equal shapes, and again whatever their widths; widths are projected if a tenth more match.

    Args:
        source: whatever ``open_source`` takes; a module is observed on ``dummy_input`` as well.
        target: the model; it is left as it is.
        method: 'truncate', 'average' or 'svd', see ``with_projection``.
        layers: 'uniform', 'first', 'last', 'similarity' or indices, see ``choose_layers``.
        dummy_input: as for ``WeightMapper``.
        threshold: pairs that score less are refused.
        heads, head_dim: attention heads where tensors don't tell them, see ``with_projection``.

    Raises:
        ConfigError: a method or a choice of layers is unknown, also where nothing has to be projected or chosen.

    Example:
        >>> plan = make_plan(nn.Linear(8, 8), nn.Linear(8, 4), method='truncate')
        >>> [(entry.target, entry.kind) for entry in plan.entries]
        [('weight', 'projected'), ('bias', 'projected')]
    """
    for name, value, known in (('method', method, METHODS), ('layers', layers, WAYS)):
        if isinstance(value, str) and value not in known:
            raise ConfigError(
                f'Expected {name} of {", ".join(known)} but got {value!r}.{did_you_mean(value, known)} '
                'Choose one of these.'
            )
    module = source if isinstance(source, nn.Module) else None
    opened = None if module else open_source(source)

    def mapped(tolerance: float) -> ProjectionPlan:
        mapper = WeightMapper(module, target, tolerance, dummy_input, source=opened, layers=layers)
        mapper.suggest_mapping(threshold)
        return mapper.plan

    plan, other = mapped(0.0), mapped(ANY_WIDTH)
    if _agreement(other) > BETTER * _agreement(plan):
        plan = other
    if any(entry.kind == 'projected' for entry in plan.entries):
        plan = with_projection(
            plan, module if opened is None else opened, method=method, heads=heads, head_dim=head_dim
        )
    return plan


def _agreement(plan: ProjectionPlan) -> float:
    return sum(entry.score for entry in plan.entries if entry.loads)
