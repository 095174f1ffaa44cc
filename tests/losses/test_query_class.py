"""Laws of the divergence between the classes of matched queries, against scipy in float64.

N image, Q query, C class.
"""

from __future__ import annotations

import loss_laws
import numpy as np
import pytest
import torch
from loss_laws import random
from scipy.special import expit, rel_entr, softmax
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import QueryClassLoss, query_class_divergence
from kdplugin.losses.query_class import foreground_weight

STUDENT, TEACHER = random(2, 6, 5, scale=2), random(2, 6, 5, seed=1, scale=2)
BOTH = pytest.mark.parametrize('scores', ['sigmoid', 'softmax'])


def independent(scores: str, temperature: float) -> np.ndarray:
    student, teacher = (side.double().numpy() / temperature for side in (STUDENT, TEACHER))
    if scores == 'softmax':
        return temperature**2 * rel_entr(softmax(teacher, -1), softmax(student, -1)).sum(-1)
    parts = rel_entr(expit(teacher), expit(student)) + rel_entr(expit(-teacher), expit(-student))
    return temperature**2 * parts.sum(-1)


@BOTH
@pytest.mark.parametrize('temperature', [1.0, 3.0])
def test_value_of_the_formula(scores: str, temperature: float) -> None:
    value = query_class_divergence(STUDENT, TEACHER, scores=scores, temperature=temperature)
    assert float(value) == pytest.approx(independent(scores, temperature).mean(), rel=1e-4)


@BOTH
@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws(law: loss_laws.Loss, scores: str) -> None:
    law(lambda *sides: query_class_divergence(*sides, scores=scores), STUDENT, TEACHER)


@BOTH
def test_zero_at_identity(scores: str) -> None:
    loss_laws.zero_at_identity(lambda *sides: query_class_divergence(*sides, scores=scores), STUDENT)


def test_only_softmax_scores_may_be_shifted() -> None:
    moved = STUDENT + random(2, 6, 1, seed=2)
    for scores, same in (('softmax', True), ('sigmoid', False)):
        values = [float(query_class_divergence(side, TEACHER, scores=scores)) for side in (STUDENT, moved)]
        assert (values[0] == pytest.approx(values[1], rel=1e-4)) is same


def test_queries_are_compared_one_by_one() -> None:
    """Which query of the teacher is a query's partner is decided before: another order is another value."""
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = query_class_divergence(STUDENT, TEACHER)
    torch.testing.assert_close(query_class_divergence(STUDENT[:, order], TEACHER[:, order]), expected)
    assert float(query_class_divergence(STUDENT, TEACHER[:, order])) != pytest.approx(float(expected), rel=1e-2)
    layers = (side.expand(4, 2, 6, 5) for side in (STUDENT, TEACHER))
    torch.testing.assert_close(query_class_divergence(*layers), expected)


@BOTH
def test_queries_of_no_weight_do_not_count(scores: str) -> None:
    weight = torch.tensor([[1.0, 0, 3, 0, 0, 0], [0, 0, 0, 0.5, 0, 0]])
    expected = np.average(independent(scores, 1), weights=weight.double().numpy())
    for garbage in (1e4, float('nan')):
        student = torch.where(weight[..., None] > 0, STUDENT, garbage)
        loss = query_class_divergence(student, TEACHER, scores=scores, weight=weight)
        assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_no_query_is_zero_with_a_gradient_path() -> None:
    student = torch.zeros(2, 0, 5, requires_grad=True)
    loss_laws.zero_with_a_gradient_path(query_class_divergence(student, torch.zeros(2, 0, 5)), student)
    student = STUDENT.clone().requires_grad_()
    nothing = query_class_divergence(student, TEACHER, weight=torch.zeros(2, 6))
    loss_laws.zero_with_a_gradient_path(nothing, student)


def test_foreground_weight_is_the_highest_score_of_a_class() -> None:
    logits = torch.tensor([[[0.0, 3.0, 0.0]]]).log().clamp(min=-30).requires_grad_()
    assert float(foreground_weight(logits)) == pytest.approx(0.75)
    assert not foreground_weight(logits).requires_grad
    no_object = torch.tensor([[[1.0, 2.0, 5.0]]]).log()
    assert float(foreground_weight(no_object, scores='softmax')) == pytest.approx(2 / 8)
    assert foreground_weight(TEACHER.half()).dtype == torch.float32


def test_class_weighs_by_the_teachers_confidence_unless_told_otherwise() -> None:
    weight = foreground_weight(TEACHER)
    expected = query_class_divergence(STUDENT, TEACHER, weight=weight)
    assert QueryClassLoss()(STUDENT, TEACHER) == expected
    plain = query_class_divergence(STUDENT, TEACHER)
    assert expected != plain
    assert QueryClassLoss(foreground=False)(STUDENT, TEACHER) == plain
    given = torch.ones(2, 6)
    given[0] = 0
    loss = QueryClassLoss(scores='softmax', temperature=3.0)
    expected = query_class_divergence(STUDENT, TEACHER, scores='softmax', temperature=3.0, weight=given)
    assert loss(STUDENT, TEACHER, labels=None, weight=given) == expected
    assert (loss.compares, loss.takes, loss.temperature) == ('relations', ('weight',), 3.0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match=r"Expected scores 'sigmoid' or 'softmax' but got 'tanh'\. Take the model's"):
        QueryClassLoss(scores='tanh')
    with pytest.raises(ConfigError, match=r'Expected a finite temperature > 0 but got 0\. Try 1 to 4'):
        QueryClassLoss(temperature=0)
    with pytest.raises(TapError, match=r'one shape but got \(2, 6, 5\) and \(2, 4, 5\)'):
        query_class_divergence(STUDENT, TEACHER[:, :4])
    with pytest.raises(TapError, match=r'Expected weights of shape \(2, 6\) but got \(6,\)'):
        query_class_divergence(STUDENT, TEACHER, weight=torch.ones(6))


def test_extreme_logits_stay_finite() -> None:
    student: Tensor = (1e4 * STUDENT).requires_grad_()
    for scores in ('sigmoid', 'softmax'):
        loss = query_class_divergence(student, 1e4 * TEACHER, scores=scores)
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite()
        assert gradient.isfinite().all()
