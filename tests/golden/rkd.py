"""Make rkd.json: rkd_loss of mdistiller (MIT), the arithmetic of RKD's authors, on points (N, C).

It averages over all N^2 pairs and N^3 triples, those of a point with itself (whose terms are 0) among them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'mdistiller/distillers/RKD.py'
SHAPES = {'equal': (5, 3, 3), 'widths': (4, 6, 2), 'three': (3, 4, 4), 'many': (12, 7, 9)}


def make(clone: Path) -> Cases:
    rkd_loss = load(clone, FILE, ('mdistiller.distillers._base',)).rkd_loss
    rng = np.random.default_rng(0)
    cases = []
    for name, (images, ours, theirs) in SHAPES.items():
        student, teacher = eighths(rng, images, ours), eighths(rng, images, theirs)
        parts = {
            part: float(rkd_loss(student, teacher, distance_weight=weights[0], angle_weight=weights[1]))
            for part, weights in (('distance', (1, 0)), ('angle', (0, 1)))
        }
        cases.append(dict(name=name, student=student.tolist(), teacher=teacher.tolist(), **parts))
    return cases


if __name__ == '__main__':
    run(__file__, 'megvii-research/mdistiller', FILE, make)
