from __future__ import annotations

from pathlib import Path

import pytest
from engine_fixtures import build, detector, distilled_detector, kd_segmentor, segmentor, shared
from torch import nn

__all__ = ['shared']


@pytest.fixture(params=['mmseg', 'mmdet'])
def both(request: pytest.FixtureRequest, shared: Path) -> tuple[nn.Module, nn.Module]:
    """A plain student and the same one distilled, from one seed."""
    if request.param == 'mmseg':
        return build(segmentor()), build(kd_segmentor(shared))
    return build(detector()), build(distilled_detector(shared))
