"""Sources seen as another network, by the name that a plan's settings give: ``settings['view']``."""

from __future__ import annotations

from collections.abc import Callable

from kdplugin.errors import CheckpointError
from kdplugin.weights.layouts.wan import StaticWan
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.reading.tensor_source import TensorSource

VIEWS: dict[str, Callable[[TensorSource], TensorSource]] = {'static wan': StaticWan}


def viewed(source: TensorSource, plan: ProjectionPlan) -> TensorSource:
    """Return the source as the plan wants to see it.

    Raises:
        CheckpointError: the plan names an unknown view.
    """
    name = plan.settings.get('view')
    if name is None or isinstance(source, tuple(view for view in VIEWS.values() if isinstance(view, type))):
        return source
    if name not in VIEWS:
        raise CheckpointError(f'Expected a view of {", ".join(VIEWS)} but the plan names {name!r}. Correct the plan.')
    return VIEWS[name](source)
