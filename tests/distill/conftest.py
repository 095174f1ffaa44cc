"""Make the shared fixtures of the engine's tests importable."""

import sys
from pathlib import Path

import pytest
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_fixtures import build, detector, distilled_detector, kd_segmentor, segmentor, shared

__all__ = ['shared']


@pytest.fixture(params=['mmseg', 'mmdet'])
def both(request: pytest.FixtureRequest, shared: Path) -> tuple[nn.Module, nn.Module]:
    """A plain student and the same one distilled, from one seed."""
    if request.param == 'mmseg':
        return build(segmentor()), build(kd_segmentor(shared))
    return build(detector()), build(distilled_detector(shared))
