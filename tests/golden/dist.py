"""Make dist.json: the DIST authors' segmentation loss (Apache-2.0) on vectors (N, C) and maps (N, C, H, W).

Their code has no temperature: logits are divided by T before, and the value multiplied by T^2, as their paper does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'segmentation/losses/dist_kd.py'
SHAPES = {'vectors': (6, 5), 'one_image': (1, 3, 4, 5), 'batch': (3, 4, 3, 2), 'wide': (2, 6, 1, 5)}
SETTINGS = ((1.0, 1.0, 1.0), (2.0, 0.0, 1.0), (0.0, 2.0, 4.0), (1.0, 0.5, 4.0))


def make(clone: Path) -> Cases:
    loss = load(clone, FILE).DIST
    rng = np.random.default_rng(0)
    cases = []
    for name, shape in SHAPES.items():
        student, teacher = eighths(rng, *shape), eighths(rng, *shape)
        inputs = dict(student=student.tolist(), teacher=teacher.tolist())
        for inter, intra, temperature in SETTINGS:
            value = temperature**2 * float(loss(inter, intra)(student / temperature, teacher / temperature))
            settings = dict(inter_weight=inter, intra_weight=intra, temperature=temperature)
            cases.append(dict(name=name, settings=settings, **inputs, value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'hunto/DIST_KD', FILE, make)
