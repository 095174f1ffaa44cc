"""Make pkd.json: PKDLoss of MMRazor (Apache-2.0), by PKD's authors, run on small maps (N, C, H, W)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'mmrazor/models/losses/pkd_loss.py'
SHAPES = {'one_image': (1, 3, 2, 5), 'batch': (3, 4, 3, 2), 'wide': (2, 2, 1, 9), 'offset': (2, 3, 4, 4)}


def make(clone: Path) -> Cases:
    loss = load(clone, FILE, ('mmrazor.registry',)).PKDLoss()
    rng = np.random.default_rng(0)
    cases = []
    for name, shape in SHAPES.items():
        student, teacher = eighths(rng, *shape), eighths(rng, *shape)
        if name == 'offset':
            student, teacher = 16 * student + 100, teacher / 4 - 3
        value = float(loss(student, teacher))
        cases.append(dict(name=name, student=student.tolist(), teacher=teacher.tolist(), value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'open-mmlab/mmrazor', FILE, make)
