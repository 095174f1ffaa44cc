"""A plan that wants its source seen as another network gets it so."""

from __future__ import annotations

import pytest

from kdplugin.errors import CheckpointError
from kdplugin.weights.layouts.skeletons import wan_layout
from kdplugin.weights.layouts.views import viewed
from kdplugin.weights.layouts.wan import StaticWan
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.reading.tensor_source import MemorySource

SOURCE = MemorySource(wan_layout(8, 8, 1))


def test_views_by_name() -> None:
    assert viewed(SOURCE, ProjectionPlan('t', 's', ())) is SOURCE
    view = viewed(SOURCE, ProjectionPlan('t', 's', (), settings={'view': 'static wan'}))
    assert isinstance(view, StaticWan)
    assert viewed(view, ProjectionPlan('t', 's', (), settings={'view': 'static wan'})) is view


def test_unknown_views_are_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"Expected a view of static wan but the plan names 'moving'\. Correct the"
    ):
        viewed(SOURCE, ProjectionPlan('t', 's', (), settings={'view': 'moving'}))
