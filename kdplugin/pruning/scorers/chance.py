"""The control: scores by chance. A scorer that does not beat it says nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from kdplugin.pruning.calibration import Calibration


def chance_scores(calibration: Calibration, unit: str, *, seed: int = 0) -> Tensor:
    """Return uniform random scores [L, U], the same for the same seed; the global random state stays.

    Args:
        calibration: only the sizes of its model count.
        unit: 'heads' or 'neurons'.
        seed: of the draw.
    """
    sizes = calibration.blocks.sizes
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(sizes.depth, sizes.units(unit), generator=generator, dtype=torch.float64)
