"""What methods tell a person that they compare: the tensors that their distance is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_laws import batch_of, learner
from method_models import dense
from torch import nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.ground_truth import truth_of
from kdplugin.distill.methods import QueryKD, StepContext
from kdplugin.distill.methods.tap_loss import TapLoss
from kdplugin.distill.pairs import parse_pair
from kdplugin.distill.taps import catch
from kdplugin.losses.quality_focal import quality_focal_divergence

Compared = list[tuple[torch.Tensor, torch.Tensor]]


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compared(folder: Path, pair: dict[str, Any]) -> tuple[Compared, float]:
    """Return what a narrower GFL's pair compares with its teacher on a batch, and its distance."""
    model = learner(folder, pair, dense('GFL'), dense('GFL', width=16, neck=24)).eval()
    distillation = distillation_of(model)
    assert distillation is not None
    (one,) = distillation.pairs
    batch = batch_of()
    args = batch['inputs'], batch['data_samples']
    with torch.no_grad(), catch(model, one.student_taps, 'student') as caught:
        model(*args, mode='tensor')
    teacher = distillation.teachers['teacher']
    theirs = teacher.outputs(one.teacher_taps, args, {})
    own = dict(adapters_of(model).items()).get('p')
    context = StepContext(caught.tensors, theirs, model, teacher, own, **truth_of(args, {}))
    with torch.no_grad():
        return one.method.compared(context), float(one.method.distance(context))


@pytest.mark.parametrize('kind', ['MGD', 'FGD'])
def test_features_are_those_after_the_adapter(kind: str, tmp_path: Path) -> None:
    levels, _ = compared(tmp_path, dict(type=f'kdplugin.{kind}', tap='neck'))
    assert len(levels) == 5
    assert all(ours.shape == theirs.shape and ours.shape[1] == 24 for ours, theirs in levels)


def test_crosskd_compares_scores_through_the_teachers_head(tmp_path: Path) -> None:
    levels, distance = compared(tmp_path, dict(type='kdplugin.CrossKD', convs=1, box_weight=0.0))
    flat = [
        torch.cat([side.permute(0, 2, 3, 1).flatten(0, 2) for side in sides]) for sides in zip(*levels, strict=True)
    ]
    assert distance == pytest.approx(float(quality_focal_divergence(*flat, beta=1.0)), rel=1e-5)


def test_queries_are_matched() -> None:
    teacher = [rand(2, 1, 6, 3), 0.2 + 0.3 * rand(2, 1, 6, 4).sigmoid()]
    order = [4, 2, 0, 5, 1, 3]
    method = QueryKD('q')
    method.own_queries = 6
    nobody: Any = None
    sides = {'bbox_head': [side[:, :, order] for side in teacher]}, {'bbox_head': teacher}
    (scores, their_scores), (boxes, their_boxes) = method.compared(StepContext(*sides, nn.Identity(), nobody))
    assert scores.shape == (1, 3, 6)
    assert boxes.shape == (1, 4, 6)
    assert torch.equal(scores, their_scores)
    assert torch.equal(boxes, their_boxes)


def test_the_distance_of_a_tap_loss_is_the_mean_over_what_it_compares() -> None:
    method = parse_pair('p', dict(tap='t', loss=dict(type='kdplugin.L2Loss'))).method
    assert isinstance(method, TapLoss)
    nobody: Any = None
    sides = [[rand(2, 4, 8, 8, seed=seed), rand(2, 4, 3, 3, seed=seed)] for seed in (0, 1)]
    sides[0][1] = rand(2, 4, 6, 6)  # is resized
    context = StepContext({'t': sides[0]}, {'t': sides[1]}, nobody, nobody)
    levels = method.compared(context)
    assert levels[1][0].shape == (2, 4, 3, 3)
    expected = sum(float((ours - theirs).square().mean()) for ours, theirs in levels) / 2
    assert float(method.distance(context)) == pytest.approx(expected, rel=1e-6)
