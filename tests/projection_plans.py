"""A plan made by hand: the first channels of the shared segmentor for its narrower student."""

from __future__ import annotations

from pathlib import Path

from engine_fixtures import build, segmentor
from torch import Tensor

from kdplugin.weights.plan import Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.reading.io import read_checkpoint


def first_channels(part: str = 'backbone') -> ProjectionPlan:
    """Return the plan for a part of the student; names are those of the part on both sides."""
    wide, narrow = (build(segmentor(width)).get_submodule(part).state_dict() for width in (16, 8))
    entries = []
    for name, value in narrow.items():
        differing = [dim for dim in range(value.ndim) if value.shape[dim] != wide[name].shape[dim]]
        steps = [Step('narrow', {'dim': dim, 'start': 0, 'stop': value.shape[dim]}) for dim in differing]
        entries.append(Entry(name, tuple(value.shape), 'projected', (Piece(name, tuple(steps)),)))
    return ProjectionPlan('segmentor.pth', part, tuple(entries))


def expected(shared: Path) -> dict[str, Tensor]:
    """Return what the plan makes of the shared segmentor's backbone, computed by slices."""
    wide = read_checkpoint(shared / 'segmentor.pth')['state_dict']
    return {
        name: wide[name][tuple(slice(size) for size in value.shape)]
        for name, value in build(segmentor()).state_dict().items()
        if name.startswith('backbone.')
    }
