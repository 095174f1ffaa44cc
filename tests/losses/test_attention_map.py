"""Laws and reference values of the divergence between attention maps.

N image, A head, L token.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import loss_laws
import pytest
import torch
from loss_laws import random
from torch import Tensor

from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import AttentionMapLoss, attention_map_divergence

SCORES = random(2, 3, 5, 5, scale=2), random(2, 3, 5, 5, seed=1, scale=2)
STUDENT, TEACHER = (side.softmax(-1) for side in SCORES)
HEADS = json.loads((Path(__file__).parents[1] / 'golden/attention_map.json').read_text())['heads']


def of_logits(student: Tensor, teacher: Tensor, **settings: object) -> Tensor:
    return attention_map_divergence(student, teacher, logits=True, **settings)


CASES = {case['name']: case for case in loss_laws.golden('attention_map')}


def sides_of(name: str) -> tuple[Tensor, Tensor, dict]:
    case = CASES[name]
    tokens = torch.arange(4) < torch.tensor(case['lengths'])[:, None]
    return case['student'].float(), case['teacher'].float(), dict(heads=HEADS, tokens=tokens)


@pytest.mark.parametrize('name', ['plain', 'padded', 'peaked'])
def test_golden_values_from_scores(name: str) -> None:
    student, teacher, settings = sides_of(name)
    assert float(of_logits(student, teacher, **settings)) == pytest.approx(CASES[name]['value'], rel=2e-5)


@pytest.mark.parametrize('name', ['plain', 'padded'])
def test_golden_values_from_probabilities(name: str) -> None:
    student, teacher, settings = sides_of(name)
    value = attention_map_divergence(student.softmax(-1), teacher.softmax(-1), **settings)
    assert float(value) == pytest.approx(CASES[name]['value'], rel=2e-5)


def test_probabilities_are_cut_off_at_one_millionth() -> None:
    student, teacher = torch.tensor([[[[0.0, 1.0]] * 2]]), torch.tensor([[[[0.25, 0.75]] * 2]])
    expected = 0.25 * math.log(0.25 / 1e-6) + 0.75 * math.log(0.75)
    assert float(attention_map_divergence(student, teacher)) == pytest.approx(expected, rel=1e-5)


def test_value_by_hand() -> None:
    """Two queries: 3/4 ln (3/2) + 1/4 ln (1/2), and 0."""
    student, teacher = torch.full((1, 1, 2, 2), 0.5), torch.tensor([[[[0.75, 0.25], [0.5, 0.5]]]])
    assert float(attention_map_divergence(student, teacher)) == pytest.approx(0.13081203594113694 / 2)


@pytest.mark.parametrize('law', loss_laws.SAME_SHAPE_LAWS)
def test_common_laws_of_scores(law: loss_laws.Loss) -> None:
    law(of_logits, *SCORES)


@pytest.mark.parametrize('law', loss_laws.LAWS)
def test_common_laws_of_probabilities(law: loss_laws.Loss) -> None:
    law(attention_map_divergence, STUDENT, TEACHER)


def test_zero_at_identity() -> None:
    loss_laws.zero_at_identity(of_logits, SCORES[0])
    assert attention_map_divergence(STUDENT, STUDENT) == 0


def test_each_head_looks_at_the_head_it_came_from() -> None:
    """A student that kept heads 4 and 1 is perfect; by position it would look at heads 0 and 1."""
    teacher = random(2, 6, 5, 5).softmax(-1)
    kept = teacher[:, [4, 1]]
    assert attention_map_divergence(kept, teacher, heads=[4, 1]) == 0
    assert float(attention_map_divergence(kept, teacher, heads=[0, 1])) > 0.1
    assert float(attention_map_divergence(kept, teacher, heads=[1, 4])) > 0.1


def test_heads_and_images_are_averaged() -> None:
    expected = attention_map_divergence(STUDENT, TEACHER)
    heads = [attention_map_divergence(STUDENT[:, [n]], TEACHER, heads=[n]) for n in range(3)]
    torch.testing.assert_close(torch.stack(heads).mean(), expected)
    images = [attention_map_divergence(STUDENT[[n]], TEACHER[[n]]) for n in range(2)]
    torch.testing.assert_close(torch.stack(images).mean(), expected)


def test_scores_may_be_shifted_per_query() -> None:
    moved = of_logits(SCORES[0] + random(2, 3, 5, 1, seed=2), SCORES[1] - random(2, 3, 5, 1, seed=3))
    torch.testing.assert_close(moved, of_logits(*SCORES), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('logits', [False, True])
def test_padded_tokens_do_not_count(logits: bool) -> None:
    tokens = torch.ones(2, 5, dtype=torch.bool)
    tokens[:, 3:] = False
    padded = ~(tokens[:, None, None] & tokens[:, None, :, None])
    results = []
    for garbage in (0.0, 0.9):
        student, teacher = (torch.where(padded, garbage, side) for side in (SCORES if logits else (STUDENT, TEACHER)))
        student.requires_grad_()
        loss = attention_map_divergence(student, teacher, logits=logits, tokens=tokens)
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.count_nonzero(gradient[padded.expand_as(gradient)]) == 0
        results.append(loss.detach())
    assert results[0] == results[1]
    alone = of_logits(*(side[:, :, :3, :3] for side in SCORES))
    torch.testing.assert_close(results[0], alone)


@pytest.mark.parametrize('logits', [False, True])
def test_padding_alone_is_zero(logits: bool) -> None:
    student = SCORES[0].softmax(-1).requires_grad_()
    nothing = attention_map_divergence(student, TEACHER, logits=logits, tokens=torch.zeros(2, 5, dtype=torch.bool))
    loss_laws.zero_with_a_gradient_path(nothing, student)


@pytest.mark.parametrize('scale', [1e2, 1e4])
def test_certain_attention_stays_finite(scale: float) -> None:
    """Softmaxes contain true zeros here, and more of them in float16."""
    for ours, theirs in ((scale * SCORES[0], scale * SCORES[1]), (-scale * SCORES[1], scale * SCORES[1])):
        ours.requires_grad_()
        for loss in (
            of_logits(ours, theirs),
            attention_map_divergence(ours.softmax(-1).half(), theirs.softmax(-1).half()),
        ):
            (gradient,) = torch.autograd.grad(loss, ours, retain_graph=True)
            assert loss.isfinite()
            assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ('shapes', 'heads'),
    [
        (((2, 2, 5, 5), (2, 3, 5, 5)), None),
        (((2, 2, 5, 5), (2, 3, 5, 5)), [0]),
        (((2, 2, 5, 5), (2, 3, 5, 5)), [0, 3]),
        (((2, 5, 5), (2, 5, 5)), None),
        (((2, 3, 5, 5), (2, 3)), [0, 1, 2]),
    ],
)
def test_heads_must_be_those_of_the_teacher(shapes: tuple[tuple[int, ...], ...], heads: list[int] | None) -> None:
    message = r'Expected attention \(N, A, L, L\) whose heads look at heads .* but got .*Set heads to the teacher head'
    with pytest.raises(TapError, match=message):
        attention_map_divergence(*(torch.zeros(shape) for shape in shapes), heads=heads)


def test_other_tokens_are_named() -> None:
    with pytest.raises(TapError, match=r'one shape but got \(2, 3, 5, 5\) and \(2, 3, 4, 4\)'):
        attention_map_divergence(STUDENT, TEACHER[:, :, :4, :4])
    with pytest.raises(TapError, match=r'Expected a mask of tokens \(2, 5\) but got \(2, 4\)\. Give one bool'):
        attention_map_divergence(STUDENT, TEACHER, tokens=torch.ones(2, 4, dtype=torch.bool))


def test_class_is_the_function_with_its_settings() -> None:
    tokens = torch.arange(5) < torch.tensor([[5], [3]])
    loss = AttentionMapLoss(heads=[2, 0], logits=True)
    expected = of_logits(SCORES[0][:, :2], SCORES[1], heads=[2, 0], tokens=tokens)
    assert loss(SCORES[0][:, :2], SCORES[1], labels=torch.zeros(2, 9, 9), tokens=tokens) == expected
    assert (loss.compares, loss.takes) == ('relations', ('tokens',))


@pytest.mark.parametrize('heads', [[], [0, -1]])
def test_heads_are_numbers_from_zero(heads: list[int]) -> None:
    with pytest.raises(ConfigError, match=r'Expected head numbers from 0 but got \[.*\]\. Give one for each student'):
        AttentionMapLoss(heads=heads)
