"""Costs and assignments of queries, against formulas in float64 numpy and against all assignments there are.

Q query, K query of the teacher that teaches, C class.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.special import expit, log_expit, log_softmax, softmax
from torch import Tensor

from kdplugin.distill.methods.query_match import assign, box_costs, class_costs, most_confident, take
from kdplugin.losses.query_class import query_class_divergence


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def boxes(count: int, seed: int) -> Tensor:
    values = torch.rand(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([0.2 + 0.6 * values[:, :2], 0.05 + 0.3 * values[:, 2:]], 1)


@pytest.mark.parametrize('scores', ['sigmoid', 'softmax'])
def test_class_costs_pair_by_pair(scores: str) -> None:
    student, teacher, temperature = random(5, 3), random(4, 3, seed=1), 2.0
    costs = class_costs(student, teacher, scores=scores, temperature=temperature)  # type: ignore[arg-type]
    assert costs.shape == (4, 5)
    for k, q in itertools.product(range(4), range(5)):
        t, s = teacher[k].numpy() / temperature, student[q].numpy() / temperature
        if scores == 'softmax':
            expected = -(softmax(t) * log_softmax(s)).sum()
        else:
            expected = -(expit(t) * log_expit(s) + expit(-t) * log_expit(-s)).sum()
        assert costs[k, q].item() == pytest.approx(temperature**2 * expected, rel=1e-12)


@pytest.mark.parametrize('scores', ['sigmoid', 'softmax'])
def test_class_costs_are_the_divergence_but_for_a_term_of_the_teacher(scores: str) -> None:
    student, teacher = random(5, 3), random(4, 3, seed=1)
    keywords: dict = dict(scores=scores, temperature=3.0)
    costs = class_costs(student, teacher, **keywords)
    divergence = torch.stack(
        [torch.stack([query_class_divergence(s[None], t[None], **keywords) for s in student]) for t in teacher]
    )
    difference = costs - divergence
    torch.testing.assert_close(difference, difference[:, :1].expand_as(difference))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return GIoU of boxes given by centre and size."""
    (low, high), (lower, higher) = ((b[:2] - b[2:] / 2, b[:2] + b[2:] / 2) for b in (one, other))
    inner = np.prod(np.maximum(np.minimum(high, higher) - np.maximum(low, lower), 0))
    union = np.prod(one[2:]) + np.prod(other[2:]) - inner
    hull = np.prod(np.maximum(high, higher) - np.minimum(low, lower))
    return float(inner / union - (hull - union) / hull)


def test_box_costs_pair_by_pair() -> None:
    student, teacher = boxes(5, 0), boxes(4, 1)
    costs = box_costs(student, teacher, l1_weight=5.0, giou_weight=2.0)
    for k, q in itertools.product(range(4), range(5)):
        t, s = teacher[k].numpy(), student[q].numpy()
        assert costs[k, q].item() == pytest.approx(5 * np.abs(t - s).sum() + 2 * (1 - overlap(t, s)), rel=1e-6)


def test_assignment_is_the_best_of_all() -> None:
    costs = random(2, 3, 4, 5)
    columns = assign(costs)
    assert columns.shape == (2, 3, 4)
    for layer, image in itertools.product(range(2), range(3)):
        matrix = costs[layer, image].numpy()
        every = {p: sum(matrix[k, q] for k, q in enumerate(p)) for p in itertools.permutations(range(5), 4)}
        assert tuple(columns[layer, image].tolist()) == min(every, key=every.__getitem__)


def test_costs_that_are_not_finite_are_the_worst() -> None:
    costs = torch.tensor([[[1.0, 9.0], [float('nan'), float('inf')]]])
    assert sorted(assign(costs)[0].tolist()) == [0, 1]
    assert assign(torch.tensor([[[float('nan'), 3.0], [1.0, 2.0]]]))[0].tolist() == [1, 0]


def test_the_most_confident_are_taken() -> None:
    weight, values = torch.tensor([[0.1, 0.9, 0.5]]), torch.arange(6.0).view(1, 3, 2)
    best = most_confident(weight, 2)
    assert best.tolist() == [[1, 2]]
    assert take(values, best).tolist() == [[[2, 3], [4, 5]]]
