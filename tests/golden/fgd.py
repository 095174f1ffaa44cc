"""Make fgd.json: the masks and sums of the FGD authors' FeatureLoss (Apache-2.0), without its global part.

Images are as large as their batch, so that their scaling by the size before padding does not matter. What they sum
over positions and channels is kept as it is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from authors_code import Cases, eighths, load, run

FILE = 'mmdet/distillation/losses/fgd.py'
TEMPERATURE = 0.5
SIZES = {'square': ((2, 3, 4, 4), (32, 32), (3, 0)), 'wide': ((3, 5, 3, 8), (48, 130), (1, 2, 0))}


def some_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> torch.Tensor:
    """Return corners (count, 4) inside an image, multiples of 1/8."""
    ends = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * (size[1], size[0])
    return torch.from_numpy(np.round(8 * ends.reshape(count, 4)) / 8)


def sums(loss: torch.nn.Module, student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> dict[str, float]:
    """Run the authors' methods on a foreground mask, with their own lines for the background mask."""
    (s_t, c_t), (s_s, c_s) = (loss.get_attention(side, TEMPERATURE) for side in (teacher, student))
    background = torch.where(mask > 0, 0.0, 1.0).double()
    background /= background.sum((1, 2), keepdim=True).clamp(min=1)
    parts = loss.get_fea_loss(student, teacher, mask, background, c_s, c_t, s_s, s_t)
    channels = loss.get_mask_loss(c_s, c_t, s_t, s_t)
    positions = loss.get_mask_loss(c_t, c_t, s_s, s_t)
    names = ('foreground', 'background', 'channels', 'positions')
    return {name: float(value) for name, value in zip(names, (*parts, channels, positions), strict=True)}


def mask_of(
    loss: torch.nn.Module, features: torch.Tensor, boxes: list[torch.Tensor], size: tuple[int, int]
) -> torch.Tensor:
    """Return the foreground mask that the authors' forward builds, caught where it is used."""
    caught = []
    loss.get_rela_loss = lambda *sides: 0
    loss.get_fea_loss = lambda student, teacher, mask, *rest: (caught.append(mask.clone()) or 0, 0)
    loss(features, features, boxes, [dict(img_shape=(*size, 3))] * len(features))
    del loss.get_fea_loss
    return caught[0]


def make(clone: Path) -> Cases:
    module = load(clone, FILE, ('mmcv', 'mmcv.cnn', 'mmdet.distillation.builder'))
    rng = np.random.default_rng(0)
    cases = []
    for name, (shape, size, counts) in SIZES.items():
        loss = module.FeatureLoss(shape[1], shape[1], 'level', temp=TEMPERATURE)
        student, teacher = eighths(rng, *shape), eighths(rng, *shape)
        boxes = [some_boxes(rng, count, size) for count in counts]
        mask = mask_of(loss, student, boxes, size)
        inputs = dict(student=student.tolist(), teacher=teacher.tolist(), size=size)
        lists = dict(boxes=[one.tolist() for one in boxes], mask=mask.tolist())
        cases.append(dict(name=name, **inputs, **lists, **sums(loss, student, teacher, mask)))
    return cases


if __name__ == '__main__':
    run(__file__, 'yzd-v/FGD', FILE, make)
