"""Make dkd.json: dkd_loss of mdistiller (MIT), the DKD authors' own repository, on logits (N, C)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from authors_code import Cases, eighths, load, run

FILE = 'mdistiller/distillers/DKD.py'
SETTINGS = ((1.0, 8.0, 4.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 0.5, 1.0))


def make(clone: Path) -> Cases:
    dkd_loss = load(clone, FILE, ('mdistiller.distillers._base',)).dkd_loss
    rng = np.random.default_rng(0)
    cases = []
    for shape in ((1, 2), (6, 5), (3, 20)):
        student, teacher = eighths(rng, *shape), eighths(rng, *shape)
        labels = torch.from_numpy(rng.integers(0, shape[1], shape[0]))
        inputs = dict(student=student.tolist(), teacher=teacher.tolist(), labels=labels.tolist())
        for alpha, beta, temperature in SETTINGS:
            value = float(dkd_loss(student, teacher, labels, alpha, beta, temperature))
            settings = dict(alpha=alpha, beta=beta, temperature=temperature)
            cases.append(dict(name=f'{shape[0]}x{shape[1]}', settings=settings, **inputs, value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'megvii-research/mdistiller', FILE, make)
