"""Make attention_transfer.json: ATLoss of MMRazor (Apache-2.0), the arithmetic of the authors' utils.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'mmrazor/models/losses/at_loss.py'
SHAPES = {'one_image': ((1, 3, 2, 5),) * 2, 'batch': ((3, 4, 3, 2),) * 2, 'widths': ((2, 2, 3, 4), (2, 7, 3, 4))}


def make(clone: Path) -> Cases:
    loss = load(clone, FILE, ('mmrazor.registry',)).ATLoss()
    rng = np.random.default_rng(0)
    cases = []
    for name, shapes in SHAPES.items():
        student, teacher = (eighths(rng, *shape) for shape in shapes)
        value = float(loss(student, teacher))
        cases.append(dict(name=name, student=student.tolist(), teacher=teacher.tolist(), value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'open-mmlab/mmrazor', FILE, make)
