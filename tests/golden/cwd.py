"""Make cwd.json: ChannelWiseDivergence of MMRazor (Apache-2.0, "PyTorch version of" the paper's) on small maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'mmrazor/models/losses/cwd.py'
SHAPES = {'one_image': (1, 3, 2, 5), 'batch': (3, 4, 3, 2), 'wide': (2, 2, 1, 9), 'peaked': (2, 3, 4, 4)}


def make(clone: Path) -> Cases:
    divergence = load(clone, FILE, ('mmrazor.registry',)).ChannelWiseDivergence
    rng = np.random.default_rng(0)
    cases = []
    for name, shape in SHAPES.items():
        for temperature in (1.0, 4.0):
            scale = 30.0 if name == 'peaked' else 2.0
            student, teacher = eighths(rng, *shape, scale=scale), eighths(rng, *shape, scale=scale)
            value = float(divergence(tau=temperature)(student, teacher))
            inputs = dict(student=student.tolist(), teacher=teacher.tolist())
            cases.append(dict(name=name, temperature=temperature, **inputs, value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'open-mmlab/mmrazor', FILE, make)
