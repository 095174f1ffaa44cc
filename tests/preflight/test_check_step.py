from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, KL, build, distilled, segmentation_batch, segmentor
from torch import nn
from torch.utils.checkpoint import checkpoint

from kdplugin.distill.distillation import Distillation
from kdplugin.distill.distiller import distillation_of
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.step import (
    Step,
    check_finite,
    check_own_losses,
    check_pair_gradient,
    check_parameters,
    check_teacher_untouched,
    nearest_leaves,
    note_shares,
    run_step,
)

PAIRS = dict(mid=dict(tap='backbone.layer2', loss=COSINE, weight=0.5), logits=dict(tap='decode_head.conv_seg', loss=KL))


def student_of(shared: Path, **changes: Any) -> tuple[nn.Module, Distillation]:
    student = build(distilled(shared, copy.deepcopy(PAIRS), **changes))
    distillation = distillation_of(student)
    assert distillation is not None
    return student, distillation


def lines(found: Findings) -> list[str]:
    return [f'{finding.level} {finding.where}: {finding.message}' for finding in found]


def test_a_good_step_has_no_error_and_shares_that_add_up(shared: Path) -> None:
    student, distillation = student_of(shared)
    found, step = Findings(), run_step(student, distillation, segmentation_batch())
    assert check_finite(found, step)
    for pair in distillation.pairs:
        check_pair_gradient(found, student, pair, step)
    check_parameters(found, student, step.total, False)
    check_teacher_untouched(found, distillation.teacher.module)
    assert found == []
    note_shares(found, step, distillation, 'a training batch')
    assert sum(step.terms.values()) == pytest.approx(step.total.item(), rel=1e-5)
    shares = [float(line.rsplit(' % of the total', 1)[0].rsplit(' ', 1)[1]) for line in lines(found)[1:]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert ' = 0.5 x ' in next(line for line in lines(found) if 'loss_kd_mid' in line)


def test_a_pair_before_which_all_is_frozen_trains_nothing_even_with_an_adapter(shared: Path) -> None:
    frozen = ['backbone.conv1', 'backbone.bn1', 'backbone.layer1', 'backbone.layer2']
    student, distillation = student_of(shared, frozen=frozen)
    found, step = Findings(), run_step(student, distillation, segmentation_batch())
    for pair in distillation.pairs:
        check_pair_gradient(found, student, pair, step)
    assert len(found) == 1
    assert lines(found)[0].startswith(
        "error model.pairs.mid: Expected a gradient from student tap 'backbone.layer2' to the"
    )


def test_a_gradient_of_zero_is_a_warning(shared: Path) -> None:
    student, distillation = student_of(shared)
    step = run_step(student, distillation, segmentation_batch())
    zero = Step({'loss_kd_mid': 0 * step.losses['loss_kd_mid']}, {}, step.total, frozenset())
    found = Findings()
    check_pair_gradient(found, student, distillation.pairs[0], zero)
    assert [finding.level for finding in found] == ['warning']
    assert 'it is zero on this batch' in found[0].message


def test_a_tap_that_is_overwritten_in_training_only_is_an_error(shared: Path) -> None:
    student, distillation = student_of(shared)

    def overwrite(module: nn.Module, args: Any) -> None:
        if module.training:
            args[0].add_(1)

    student.backbone.layer3.register_forward_pre_hook(overwrite)
    step = run_step(student, distillation, segmentation_batch())
    assert step.overwritten == {'backbone.layer2'}
    found = Findings()
    for pair in distillation.pairs:
        found.attempt(pair.name, 'a gradient', check_pair_gradient, found, student, pair, step)
    assert "student tap 'backbone.layer2' to stay as it is but an in-place operation overwrites" in found[0].message


def test_losses_that_are_not_finite_are_named(shared: Path) -> None:
    student, distillation = student_of(shared)
    with torch.no_grad():
        student.decode_head.conv_seg.bias.fill_(float('nan'))
    found, step = Findings(), run_step(student, distillation, segmentation_batch())
    assert not check_finite(found, step)
    assert 'decode.loss_ce=nan, loss_kd_logits=nan' in found[0].message


def test_parameters_without_a_gradient_are_a_warning_unless_the_config_allows_them() -> None:
    student = build(segmentor())
    student.register_parameter('spare', nn.Parameter(torch.zeros(1)))
    batch = segmentation_batch()
    found = Findings()
    check_parameters(found, student, run_step(student, None, batch).total, False)
    assert [finding.level for finding in found] == ['warning']
    assert '1 have none (spare). Freeze them or set find_unused_parameters=True' in found[0].message
    student.zero_grad()
    allowed = Findings()
    check_parameters(allowed, student, run_step(student, None, batch).total, True)
    assert allowed == []


def test_a_gradient_at_the_teacher_is_an_error() -> None:
    teacher = nn.Linear(2, 2).requires_grad_(False)
    found = Findings()
    check_teacher_untouched(found, teacher)
    assert found == []
    teacher.weight.requires_grad_(True)
    check_teacher_untouched(found, teacher)
    assert "['weight'] have one" in found[0].message


def test_the_nearest_leaves_are_those_of_the_last_layers_and_of_no_other_model() -> None:
    layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(6)))
    adapter = nn.Linear(2, 2)
    term = adapter(layers(torch.ones(1, 2))).sum()
    own = list(layers.parameters())
    found, hidden = nearest_leaves(term, own, most=4)
    assert not hidden
    assert found[0] is layers[5].bias
    assert {id(one) for one in found} < {id(one) for one in layers[2:].parameters()}
    assert len(nearest_leaves(term, own, most=100)[0]) == 12
    assert nearest_leaves(term, [nn.Parameter(torch.zeros(1))]) == ([], False)
    assert nearest_leaves(torch.ones(()), own) == ([], False)


def test_what_is_recomputed_in_the_backward_pass_counts_as_reached() -> None:
    layer = nn.Linear(2, 2)
    images = torch.ones(1, 2, requires_grad=True)
    assert nearest_leaves(checkpoint(layer, images, use_reentrant=True).sum(), list(layer.parameters())) == ([], True)
    found, hidden = nearest_leaves(checkpoint(layer, images, use_reentrant=False).sum(), list(layer.parameters()))
    assert len(found) == 2
    assert not hidden


def test_a_pair_behind_a_recomputed_stage_is_no_error(shared: Path) -> None:
    student, distillation = student_of(shared)
    forward, layer = student.backbone.layer2.forward, student.backbone.layer2
    layer.forward = lambda images: checkpoint(forward, images, use_reentrant=True)
    step = run_step(student, distillation, segmentation_batch())
    found = Findings()
    for pair in distillation.pairs:
        found.attempt(pair.name, 'a gradient', check_pair_gradient, found, student, pair, step)
    assert found == []


def test_a_gradient_of_zero_on_random_images_says_nothing(shared: Path) -> None:
    student, distillation = student_of(shared)
    step = run_step(student, distillation, segmentation_batch())
    zero = Step({'loss_kd_mid': 0 * step.losses['loss_kd_mid']}, {}, step.total, frozenset())
    found = Findings()
    check_pair_gradient(found, student, distillation.pairs[0], zero, real=False)
    assert found == []


def named(*names: str, value: float = 1.0) -> Step:
    losses = {name: torch.tensor(value) for name in names}
    terms = {name: value for name in names if 'loss' in name}
    return Step(losses, terms, torch.tensor(value), frozenset())


def test_losses_of_the_task_that_nobody_adds_are_an_error() -> None:
    found = Findings()
    check_own_losses(found, named('decode.loss_ce', 'decode.acc_seg', 'loss_kd_mid', 'kd_mid_raw'))
    assert found == []
    check_own_losses(found, named('decode.ce', 'acc_seg', 'loss_kd_mid', 'kd_mid_raw'))
    assert [one.level for one in found] == ['error']
    assert "but got ['decode.ce']. The task is not trained" in found[0].message
    alone = Findings()
    check_own_losses(alone, named('loss_kd_mid', 'kd_mid_raw'))  # a backbone that learns from its teacher alone
    assert alone == []


def test_a_loss_below_zero_is_a_warning() -> None:
    found = Findings()
    check_own_losses(found, named('loss_bbox', value=-2.0))
    assert [one.level for one in found] == ['warning']
    assert 'at least 0 but got loss_bbox=-2' in found[0].message
    check_own_losses(found, named('loss_bbox', value=0.0))
    assert len(found) == 1
