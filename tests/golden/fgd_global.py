"""Make fgd_global.json: the global part of the FGD authors' FeatureLoss (Apache-2.0) on small maps.

The sum over channels and positions, divided by the images, is kept as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from authors_code import Cases, eighths, load, run

FILE = 'mmdet/distillation/losses/fgd.py'
SHAPES = {'square': (2, 4, 3, 3), 'wide': (1, 2, 2, 5)}


def make(clone: Path) -> Cases:
    module = load(clone, FILE, ('mmcv', 'mmcv.cnn', 'mmdet.distillation.builder'))
    module.FeatureLoss.reset_parameters = lambda loss: None
    rng = np.random.default_rng(0)
    cases = []
    for name, shape in SHAPES.items():
        loss = module.FeatureLoss(shape[1], shape[1], 'level').double()
        state = {key: eighths(rng, *value.shape, scale=0.5) for key, value in loss.state_dict().items()}
        loss.load_state_dict(state)
        student, teacher = eighths(rng, *shape), eighths(rng, *shape)
        value = float(loss.get_rela_loss(student, teacher).detach())
        weights = {key: tensor.tolist() for key, tensor in state.items()}
        inputs = dict(student=student.tolist(), teacher=teacher.tolist())
        cases.append(dict(name=name, **inputs, weights=weights, value=value))
    return cases


if __name__ == '__main__':
    run(__file__, 'yzd-v/FGD', FILE, make)
