"""Laws and reference values of FGD's focal part.

N image, C channel, H W position, M object.
"""

from __future__ import annotations

from typing import Any

import loss_laws
import pytest
import torch
from loss_laws import random
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.losses import FGDFocalLoss, focal_distance

STUDENT, TEACHER = random(2, 5, 4, 6), random(2, 5, 4, 6, seed=1)
BOXES = [torch.tensor([[0.0, 0.0, 10.0, 7.0], [20.0, 8.0, 30.0, 31.0]]), torch.tensor([[3.0, 10.0, 12.0, 20.0]])]
SIZE = (32, 48)
PARTS = ('foreground', 'background', 'attention')


def distance(student: Tensor, teacher: Tensor, **settings: Any) -> Tensor:
    boxes = settings.pop('boxes', BOXES[: len(student)])
    return focal_distance(student, teacher, boxes=boxes, image_size=SIZE, **settings)


def only(part: str) -> dict[str, float]:
    return {name: float(name == part) for name in PARTS}


@pytest.mark.parametrize('case', loss_laws.golden('fgd'), ids=lambda case: case['name'])
def test_sums_of_the_authors_code(case: dict) -> None:
    """They sum over channels, positions and objects what is averaged here; the attention's two parts come as one."""
    student, teacher = case['student'].float(), case['teacher'].float()
    n, c, h, w = student.shape
    boxes = [torch.tensor(one).reshape(-1, 4) for one in case['boxes']]
    settings = dict(boxes=boxes, image_size=tuple(case['size']))
    foreground, background, attention = (
        float(focal_distance(student, teacher, **settings, **only(part))) for part in PARTS
    )
    objects = float(case['mask'].sum()) / n
    assert foreground * c * objects == pytest.approx(case['foreground'], rel=2e-5)
    assert background * c == pytest.approx(case['background'], rel=2e-5)
    assert attention == pytest.approx(case['channels'] / c + case['positions'] / (h * w), rel=2e-5)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(distance, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(distance, STUDENT, value=0, slope=0)


def test_ignored_positions_do_not_count() -> None:
    loss_laws.ignored_positions_do_not_count(distance, STUDENT, TEACHER)


@pytest.mark.parametrize('part', PARTS)
def test_padding_changes_nothing(part: str) -> None:
    """An image of 4 x 4 cells padded to 4 x 6: the boxes keep their pixels."""
    labels = torch.zeros(2, 4, 6, dtype=torch.long)
    labels[..., 4:] = 255
    boxes = [one.clamp(max=24) for one in BOXES]
    boxes = [one[:1] for one in boxes]
    padded = focal_distance(STUDENT, TEACHER, boxes=boxes, image_size=SIZE, labels=labels, **only(part))
    alone = focal_distance(STUDENT[..., :4], TEACHER[..., :4], boxes=boxes, image_size=(32, 32), **only(part))
    torch.testing.assert_close(padded, alone)


def test_foreground_and_background_look_at_their_own_positions() -> None:
    boxes = [torch.tensor([[8.0, 8.0, 15.0, 15.0]])]  # cells 1 and 2 in both directions
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[1:3, 1:3] = True
    for part, expected in (('foreground', inside), ('background', ~inside)):
        student = STUDENT[:1].clone().requires_grad_()
        distance(student, TEACHER[:1], boxes=boxes, **only(part)).backward()
        assert torch.equal(student.grad[0].abs().amax(0) > 0, expected)


def test_each_object_counts_alike() -> None:
    """Two objects, one of 4 cells and one of 12, with errors 1 and 3 everywhere and no attention: mean 2."""
    boxes = [torch.tensor([[0.0, 0.0, 7.0, 7.0], [24.0, 0.0, 39.0, 23.0]])]
    teacher = torch.ones(1, 1, 4, 6)
    student = teacher.clone()
    student[..., :2, :2] += 1
    student[..., :4, 3:6] += 3**0.5
    value = distance(student, teacher, boxes=boxes, **only('foreground'))
    assert float(value) == pytest.approx(2, rel=1e-5)


def test_images_without_objects() -> None:
    """Their foreground is exactly 0; of a batch that has some elsewhere they take nothing away."""
    none = [torch.zeros(0, 4)] * 2
    student = STUDENT.clone().requires_grad_()
    loss_laws.zero_with_a_gradient_path(distance(student, TEACHER, boxes=none, **only('foreground')), student)
    assert float(distance(STUDENT, TEACHER, boxes=none, **only('background'))) > 0
    assert float(distance(STUDENT, TEACHER, boxes=none).isfinite())
    one = distance(STUDENT, TEACHER, boxes=[BOXES[0], none[0]], **only('foreground'))
    torch.testing.assert_close(one, distance(STUDENT[:1], TEACHER[:1], boxes=BOXES[:1], **only('foreground')))


def test_an_object_as_large_as_the_image_leaves_no_background() -> None:
    student = STUDENT.clone().requires_grad_()
    boxes = [torch.tensor([[0.0, 0.0, 48.0, 32.0]])] * 2
    loss_laws.zero_with_a_gradient_path(distance(student, TEACHER, boxes=boxes, **only('background')), student)


def test_value_does_not_grow_with_channels_images_or_the_level() -> None:
    """A sum over the largest level of a pyramid is what overflows."""
    for part in PARTS[:2]:
        expected = distance(STUDENT, TEACHER, **only(part))
        wide = distance(STUDENT.repeat(1, 3, 1, 1), TEACHER.repeat(1, 3, 1, 1), **only(part))
        torch.testing.assert_close(wide, expected)
        many = distance(STUDENT.repeat(2, 1, 1, 1), TEACHER.repeat(2, 1, 1, 1), boxes=BOXES * 2, **only(part))
        torch.testing.assert_close(many, expected)
    student, teacher = (300 * random(1, 64, 40, 40, seed=seed).half() for seed in (0, 1))
    assert (student - teacher).square().sum().isinf()
    assert distance(student, teacher).isfinite()


def test_boxes_are_needed_for_each_image() -> None:
    message = r'Expected the boxes of 2 images and the size of their batch but got (none|those of 1)\. Use FGDFocalLoss'
    for boxes, size in ((None, SIZE), (BOXES, None), (BOXES[:1], SIZE)):
        with pytest.raises(ConfigError, match=message):
            focal_distance(STUDENT, TEACHER, boxes=boxes, image_size=size)


def test_class_is_the_function_with_its_settings() -> None:
    labels = torch.randint(0, 3, (2, 4, 6), generator=torch.Generator().manual_seed(0))
    settings = dict(temperature=0.7, foreground=2.0, background=0.3, attention=0.1)
    loss = FGDFocalLoss(ignore_index=1, **settings)
    expected = distance(STUDENT, TEACHER, labels=labels, ignore_index=1, **settings)
    assert loss(STUDENT, TEACHER, labels=labels, boxes=BOXES, image_size=SIZE) == expected
    assert (loss.compares, loss.needs) == ('features', ('boxes', 'image_size'))
    assert not list(loss.parameters())
    with pytest.raises(ConfigError, match=r'Expected a finite temperature > 0 but got 0\. The paper has 0\.5'):
        FGDFocalLoss(temperature=0)
