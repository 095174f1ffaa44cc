"""Query KD: the best of all matchings, layers, denoising queries left out, and training on mmdet's DETR family.

N image, L decoder layer, Q query, C class.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import teacher_of
from method_laws import LAWS, batch_of, gradients_of_the_pair_alone, learner, raw
from method_laws import it_trains_the_student_and_its_own_parameters_only as it_trains
from method_models import QUERIES, dense, queries
from torch import Tensor, nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.methods import QueryKD, StepContext
from kdplugin.distill.methods.query_kd import paired_layers
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses.query_box import query_box_distance
from kdplugin.losses.query_class import foreground_weight, query_class_divergence

PAIR = dict(type='kdplugin.QueryKD')
TEACHER = dict(width=16, dims=64, count=8, layers=3)


def random_side(layers: int, count: int, seed: int, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(layers, images, count, 3, generator=generator)
    boxes = 0.2 + 0.3 * torch.rand(layers, images, count, 4, generator=generator)
    return [logits, boxes]


def distance(student: list[Tensor], teacher: list[Tensor], own: int | None = None, **settings: Any) -> Tensor:
    method = QueryKD('p', **settings)
    method.own_queries = own or student[0].shape[2]
    sides = {'bbox_head': student}, {'bbox_head': teacher}
    return method.distance(StepContext(*sides, nn.Identity(), None))  # type: ignore[arg-type]


def of_one_matching(student: list[Tensor], teacher: list[Tensor], order: tuple[int, ...]) -> Tensor:
    """Return the value of one layer and image, if query order[k] of the student learns from query k."""
    ours = [values[:, :, list(order)] for values in student]
    weight = foreground_weight(teacher[0])
    classes = query_class_divergence(ours[0], teacher[0], weight=weight)
    return classes + query_box_distance(ours[1], teacher[1], weight=weight)


def test_the_matching_is_the_best_of_all() -> None:
    student, teacher = random_side(1, 5, 0, images=1), random_side(1, 4, 1, images=1)
    every = [of_one_matching(student, teacher, order) for order in itertools.permutations(range(5), 4)]
    assert len({round(float(value), 5) for value in every}) > 100
    torch.testing.assert_close(distance(student, teacher), torch.stack(every).min())


def test_the_mean_runs_over_images_and_layers_by_confidence() -> None:
    student, teacher = random_side(2, 4, 0), random_side(2, 4, 1)
    total, weights = 0.0, 0.0
    for layer, image in itertools.product(range(2), range(2)):
        ours, theirs = (
            [values[layer : layer + 1, image : image + 1] for values in side] for side in (student, teacher)
        )
        weight = float(foreground_weight(theirs[0]).sum())
        total += weight * float(distance(ours, theirs))
        weights += weight
    assert float(distance(student, teacher)) == pytest.approx(total / weights, rel=1e-5)


def test_zero_at_identity_whatever_the_order_of_queries() -> None:
    teacher = random_side(2, 6, 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    student = [values[:, :, order].clone().requires_grad_() for values in teacher]
    value = distance(student, teacher)
    assert abs(float(value.detach())) < 1e-6
    assert float(distance(random_side(2, 6, 2), teacher)) > 0.1


def test_teacher_gets_no_gradient() -> None:
    student, teacher = ([v.requires_grad_() for v in random_side(1, 4, seed)] for seed in (0, 1))
    distance(student, teacher).backward()
    assert all(values.grad is None for values in teacher)
    assert all(values.grad.abs().max() > 0 and values.grad.isfinite().all() for values in student)


def test_queries_of_denoising_come_first_and_are_left_out() -> None:
    student, teacher = random_side(1, 4, 0), random_side(1, 4, 1)
    noisy = [torch.cat([torch.full_like(values, 0.3)[:, :, :3], values], 2) for values in student]
    assert torch.equal(distance(noisy, teacher, own=4), distance(student, teacher))
    assert not torch.equal(distance(noisy, teacher), distance(student, teacher))


def test_only_the_most_confident_teach() -> None:
    """Of more than the student can take, and of more than are asked for."""
    student, teacher = random_side(1, 3, 0), random_side(1, 6, 1)
    best = foreground_weight(teacher[0]).topk(3, -1).indices
    fewer = [values.gather(2, best[..., None].expand(-1, -1, -1, values.shape[3])) for values in teacher]
    torch.testing.assert_close(distance(student, teacher), distance(student, fewer))
    torch.testing.assert_close(distance(student, teacher, queries=3), distance(student, fewer))
    first = [values[:, :, :1] for values in fewer]
    torch.testing.assert_close(distance(student, teacher, queries=1), distance(student, first))


def test_layers_learn_from_those_that_stand_where_they_stand() -> None:
    assert [paired_layers(*pair) for pair in ((6, 6), (3, 6), (6, 3), (2, 3), (4, 1))] == [
        [0, 1, 2, 3, 4, 5], [1, 3, 5], [0, 0, 1, 1, 2, 2], [1, 2], [0, 0, 0, 0],
    ]  # fmt: skip
    student, teacher = random_side(2, 4, 0), random_side(3, 4, 1)
    picked = [values[[1, 2]] for values in teacher]
    assert torch.equal(distance(student, teacher), distance(student, picked))
    last = [values[-1:] for values in student], [values[-1:] for values in teacher]
    assert torch.equal(distance(student, teacher, layers='last'), distance(*last))


def test_softmax_scores_leave_no_object_out_of_the_confidence() -> None:
    student, teacher = random_side(1, 4, 0), random_side(1, 4, 1)
    teacher[0][..., 2] = 30.0
    method = QueryKD('p')
    method.scores, method.own_queries = 'softmax', 4
    sides = {'bbox_head': student}, {'bbox_head': teacher}
    value = method.distance(StepContext(*sides, nn.Identity(), None))  # type: ignore[arg-type]
    assert value.isfinite()


@pytest.mark.parametrize('kind', QUERIES)
def test_training(kind: str, tmp_path: Path) -> None:
    """The teacher is wider and deeper, with more queries; DINO's student adds queries of denoising."""
    model = learner(tmp_path, PAIR, queries(kind), queries(kind, **TEACHER))
    assert not adapters_of(model)
    assert distillation_of(model).pairs[0].method.own_queries == 6
    gradients_of_the_pair_alone(model, batch_of(), 'bbox_head.', own=False)
    assert any(value.grad is not None and value.grad.any() for value in model.decoder.parameters())
    it_trains(model, queries(kind), batch_of(padded=True))
    if kind in ('DETR', 'DINO'):
        for law in LAWS:
            law(model, batch_of())


def test_a_student_that_is_its_teacher_learns_nothing(tmp_path: Path) -> None:
    model = learner(tmp_path, PAIR, queries('DeformableDETR'), queries('DeformableDETR'))
    assert raw(model, batch_of()).detach() > 1e-3
    model.load_state_dict(teacher_of(model).state_dict(), strict=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.Dropout):
            module.eval()
    assert raw(model, batch_of()).detach().abs() < 1e-4


def test_settings_and_their_errors(tmp_path: Path) -> None:
    for settings, message in (
        (dict(layers='first'), r"Expected layers 'all' or 'last' in pair 'p' but got 'first'"),
        (dict(queries=0), r"Expected queries >= 1 in pair 'p' but got 0\. None takes all"),
        (dict(temperature=0), r"Expected a finite temperature of pair 'p' > 0 but got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            QueryKD('p', **settings)
    with pytest.raises(
        TapError, match=r"Expected pair 'p' to see class logits \(L, N, Q, C\) and boxes .* but 'bbox_head'"
    ):
        learner(tmp_path, PAIR, dense('GFL'), dense('GFL'))
    other = queries('DeformableDETR')
    other['bbox_head']['num_classes'] = 7
    with pytest.raises(TapError, match=r"student and teacher of pair 'p' to score the same classes but got 10 and 7"):
        learner(tmp_path, PAIR, queries('DeformableDETR'), other)
    softmax = queries('DETR')
    softmax['bbox_head']['num_classes'] = 9
    with pytest.raises(ConfigError, match=r"both heads of pair 'p' to score classes alike but got sigmoid and softmax"):
        learner(tmp_path, PAIR, queries('DABDETR'), softmax)
