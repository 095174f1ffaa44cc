"""Make localization.json: knowledge_distillation_kl_div_loss of the LD authors (Apache-2.0) on sides (4 M, B).

It takes the mean over the B bins; the values are those of each side, not yet averaged or weighted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'mmdet/models/losses/kd_loss.py'


def make(clone: Path) -> Cases:
    loss = load(clone, FILE, ('mmcv', 'mmdet.models.builder', 'mmdet.models.losses.utils'))
    rng = np.random.default_rng(0)
    cases = []
    for boxes, bins, temperature in ((3, 17, 10.0), (5, 4, 1.0), (1, 2, 2.0)):
        student, teacher = eighths(rng, 4 * boxes, bins), eighths(rng, 4 * boxes, bins)
        values = loss.knowledge_distillation_kl_div_loss(student, teacher, temperature).tolist()
        inputs = dict(student=student.tolist(), teacher=teacher.tolist())
        cases.append(dict(name=f'{boxes}x{bins}', temperature=temperature, **inputs, values=values))
    return cases


if __name__ == '__main__':
    run(__file__, 'HikariTJU/LD', FILE, make)
