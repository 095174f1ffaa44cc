"""Laws of the distance between the boxes of matched queries.

N image, Q query.
"""

from __future__ import annotations

import loss_laws
import pytest
import torch

from kdplugin.errors import TapError
from kdplugin.losses import QueryBoxLoss, giou_distance, query_box_distance

TEACHER = torch.tensor([[[0.5, 0.5, 0.4, 0.2], [0.3, 0.6, 0.1, 0.3], [0.8, 0.2, 0.2, 0.2]]] * 2)
STUDENT = TEACHER + torch.linspace(-0.04, 0.05, 24).reshape(2, 3, 4)


def test_value_by_hand() -> None:
    """Widths 0.4 and 0.2 around one centre: L1 0.2, IoU 1/2, and the hull is the union."""
    student, teacher = torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([[0.5, 0.5, 0.4, 0.2]])
    assert float(query_box_distance(student, teacher)) == pytest.approx(5 * 0.2 + 2 * 0.5, rel=1e-5)
    assert float(query_box_distance(student, teacher, l1_weight=0, giou_weight=1)) == pytest.approx(0.5, rel=1e-5)


def test_overlap_is_that_of_the_corners() -> None:
    corners = [torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1) for b in (STUDENT, TEACHER)]
    value = query_box_distance(STUDENT, TEACHER, l1_weight=0, giou_weight=3)
    torch.testing.assert_close(value, 3 * giou_distance(*corners))


def test_distance_sums_the_four_numbers_of_a_box() -> None:
    expected = (STUDENT - TEACHER).double().abs().sum(-1).mean()
    value = query_box_distance(STUDENT, TEACHER, l1_weight=1, giou_weight=0)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    'law',
    [
        loss_laws.gradient_reaches_only_the_student,
        loss_laws.gradient_equals_differences,
        loss_laws.half_precision_is_computed_in_float32,
        loss_laws.autocast_changes_nothing,
        loss_laws.layout_of_memory_does_not_matter,
        loss_laws.one_image_suffices,
    ],
)
def test_common_laws(law: loss_laws.Loss) -> None:
    law(query_box_distance, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    assert float(query_box_distance(TEACHER, TEACHER)) == pytest.approx(0, abs=1e-5)


def test_queries_of_no_weight_do_not_count() -> None:
    weight = torch.tensor([[1.0, 0, 0], [0, 0, 3]])
    student = torch.where(weight[..., None] > 0, STUDENT, 9.0)
    value = query_box_distance(student, TEACHER, weight=weight)
    alone = [query_box_distance(STUDENT[n, [q]], TEACHER[n, [q]]) for n, q in ((0, 0), (1, 2))]
    torch.testing.assert_close(value, (alone[0] + 3 * alone[1]) / 4)


def test_padded_boxes_of_the_teacher_stay_finite() -> None:
    teacher = TEACHER.clone()
    teacher[:, 2] = 0
    student = STUDENT.clone()
    student[0, 2] = 0
    student.requires_grad_()
    loss = query_box_distance(student, teacher)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert float(gradient.abs().max()) < 50


def test_no_query_is_zero_with_a_gradient_path() -> None:
    student = torch.zeros(2, 0, 4, requires_grad=True)
    loss_laws.zero_with_a_gradient_path(query_box_distance(student, torch.zeros(2, 0, 4)), student)
    student = STUDENT.clone().requires_grad_()
    loss_laws.zero_with_a_gradient_path(query_box_distance(student, TEACHER, weight=torch.zeros(2, 3)), student)


def test_class_is_the_function_with_its_settings() -> None:
    weight = torch.tensor([[1.0, 0, 0], [0, 0, 3]])
    loss = QueryBoxLoss(l1_weight=2.0, giou_weight=3.0)
    expected = query_box_distance(STUDENT, TEACHER, l1_weight=2, giou_weight=3, weight=weight)
    assert loss(STUDENT, TEACHER, labels=None, weight=weight) == expected
    assert (loss.compares, loss.takes) == ('relations', ('weight',))
    with pytest.raises(TapError, match=r'one shape but got \(2, 3, 4\) and \(2, 2, 4\)'):
        loss(STUDENT, TEACHER[:, :2])
    with pytest.raises(TapError, match=r'Expected boxes \(\.\.\., 4\) but got'):
        loss(STUDENT[..., :3], TEACHER[..., :3])
