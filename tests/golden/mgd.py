"""Make mgd.json: the MGD authors' FeatureLoss (Apache-2.0) on small maps, with their random mask written down.

The sum over channels and positions, divided by the images, is kept as it is; alpha is 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from authors_code import Cases, eighths, load, run

FILE = 'det/mmdet/distillation/losses/mgd.py'
CASES = {'adapted': (2, 2, 3, 3, 4), 'same_width': (1, 3, 3, 2, 5)}
RATIO = 0.65


def make(clone: Path) -> Cases:
    module = load(clone, FILE, ('det.mmdet.distillation.builder',))
    rng = np.random.default_rng(0)
    cases = []
    for name, (n, ours, theirs, h, w) in CASES.items():
        loss = module.FeatureLoss(ours, theirs, 'level', alpha_mgd=1.0, lambda_mgd=RATIO).double()
        state = {key: eighths(rng, *value.shape, scale=0.5) for key, value in loss.state_dict().items()}
        loss.load_state_dict(state)
        student, teacher = eighths(rng, n, ours, h, w), eighths(rng, n, theirs, h, w)
        torch.manual_seed(0)
        mask = torch.where(torch.rand((n, 1, h, w)) > 1 - RATIO, 0, 1)
        torch.manual_seed(0)
        value = float(loss(student, teacher))
        weights = {key: tensor.tolist() for key, tensor in state.items()}
        inputs = dict(student=student.tolist(), teacher=teacher.tolist(), mask=mask.tolist())
        cases.append(dict(name=name, **inputs, weights=weights, value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'yzd-v/MGD', FILE, make)
