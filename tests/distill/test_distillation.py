"""Contracts 3 (no KD is no KD), 4 (a tap that did not fire is an error) and 5 (the total is what is documented)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    KL,
    Forwards,
    all_tensors,
    build,
    detection_batch,
    detector,
    distilled,
    distilled_detector,
    feature_and_logit_pairs,
    segmentation_batch,
    segmentor,
    stir,
    teacher_of,
)
from engine_runs import Run, run_config, start
from torch import Tensor, nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.errors import TapError
from kdplugin.losses import cosine_distance, kl_divergence
from kdplugin.weights.reading.io import hash_tensors

FLAT = dict(logits=dict(tap='decode_head.conv_seg', loss=KL, weight=2.0))


def outputs_of(model: nn.Module, path: str, batch: dict[str, Any], mode: str) -> list[Tensor]:
    """Catch what a module puts out, by a hook that shares no code with the engine's."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        found.extend(value.detach().clone() for value in ([output] if isinstance(output, Tensor) else output))

    handle = model.get_submodule(path).register_forward_hook(keep)
    model.forward(**batch, mode=mode)
    handle.remove()
    return found


# contract 3


@pytest.fixture(scope='module')
def plain_run(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start(run_config(shared, tmp_path_factory.mktemp('plain'), segmentor(), iters=5))


@pytest.mark.parametrize('pairs', ['none', 'zero'])
def test_no_kd_is_no_kd(shared: Path, tmp_path: Path, plain_run: Run, pairs: str) -> None:
    """Losses, their names and the weights equal those of the plain config bit for bit after 5 iterations."""
    weightless = {name: dict(pair, weight=0) for name, pair in feature_and_logit_pairs().items()}
    config = run_config(shared, tmp_path, distilled(shared, weightless if pairs == 'zero' else {}), iters=5)
    config.custom_hooks = [dict(type='mmengine.WatchTeacher')]
    run = start(config)
    assert run.teacher_forwards == 0
    assert run.steps == plain_run.steps
    assert len(run.steps) == 5
    assert hash_tensors(all_tensors(run.model)) == hash_tensors(all_tensors(plain_run.model))
    assert not adapters_of(run.model)


def test_no_kd_is_no_kd_for_a_detector(shared: Path) -> None:
    weightless = distilled_detector(shared)
    for pair in weightless['pairs'].values():
        pair['weight'] = 0.0
    calls, seen = [], []
    for config in (detector(), weightless, dict(weightless, pairs={})):
        model = build(config).train()
        if distillation_of(model):
            calls.append(Forwards(teacher_of(model)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(2):
            total, logged = model.parse_losses(model(**detection_batch(seed=step), mode='loss'))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        seen.append(({name: float(value) for name, value in logged.items()}, hash_tensors(all_tensors(model))))
    assert seen[0] == seen[1] == seen[2]
    assert [call.count for call in calls] == [0, 0]


def test_the_same_watch_sees_a_teacher_that_runs(shared: Path, tmp_path: Path, plain_run: Run) -> None:
    config = run_config(shared, tmp_path, distilled(shared, FLAT), iters=2)
    config.custom_hooks = [dict(type='mmengine.WatchTeacher')]
    run = start(config)
    assert run.teacher_forwards == 2
    assert run.steps[0]['decode.loss_ce'] == plain_run.steps[0]['decode.loss_ce']
    assert run.steps[1]['decode.loss_ce'] != plain_run.steps[1]['decode.loss_ce']


# contract 5


def test_total_is_the_task_and_the_weighted_terms(shared: Path) -> None:
    model = build(distilled(shared, feature_and_logit_pairs(), segmentor(auxiliary=True), task_weight=0.3)).train()
    torch.manual_seed(0)
    total, logged = model.parse_losses(model(**segmentation_batch(), mode='loss'))
    plain = build(segmentor(auxiliary=True)).train()
    torch.manual_seed(0)
    task, plain_logged = plain.parse_losses(plain(**segmentation_batch(), mode='loss'))
    assert {'decode.loss_ce', 'aux.loss_ce', 'decode.acc_seg'} <= set(plain_logged)
    assert logged['kd_task'].item() == pytest.approx(0.3 * task.item(), rel=1e-6)
    assert logged['decode.acc_seg'] == plain_logged['decode.acc_seg']
    terms = {
        name: (logged[f'kd_{name}_weight'].item(), logged[f'kd_{name}_raw'].item()) for name in ('feature', 'logits')
    }
    assert [weight for weight, _ in terms.values()] == [0.5, 2.0]
    assert total.item() == pytest.approx(0.3 * task.item() + sum(w * raw for w, raw in terms.values()), rel=1e-6)
    for name, (weight, raw) in terms.items():
        assert logged[f'loss_kd_{name}'].item() == pytest.approx(weight * raw, rel=1e-6)


def test_only_trained_terms_have_loss_in_their_name(shared: Path) -> None:
    losses = build(distilled(shared, feature_and_logit_pairs())).train()(**segmentation_batch(), mode='loss')
    trained = {name for name, value in losses.items() if 'loss' in name}
    assert trained == {'decode.loss_ce', 'loss_kd_feature', 'loss_kd_logits'}
    assert all(losses[name].requires_grad for name in trained)
    assert not any(losses[name].requires_grad for name in losses if name.startswith('kd_'))


def test_raw_terms_of_a_segmentor_are_the_losses_of_what_the_taps_put_out(shared: Path) -> None:
    """Features through their adapters, logits with ignored pixels left out, the teacher in eval mode."""
    model = build(distilled(shared, feature_and_logit_pairs(), segmentor(dropout=0.0))).train()
    batch = segmentation_batch()
    losses = model(**batch, mode='loss')
    plain = build(segmentor(dropout=0.0))
    plain.load_state_dict(model.state_dict())
    plain.train()
    labels = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
    assert (labels == 255).any()
    ours, theirs = (
        outputs_of(side, 'decode_head.conv_seg', batch, mode)
        for side, mode in ((plain, 'loss'), (teacher_of(model), 'tensor'))
    )
    expected = kl_divergence(*ours, *theirs, temperature=2.0, labels=labels)
    assert losses['kd_logits_raw'].item() == pytest.approx(expected.item(), rel=1e-4)  # the teacher is folded
    ours, theirs = (outputs_of(side, 'backbone', batch, 'tensor') for side in (plain, teacher_of(model)))
    levels = [
        cosine_distance(layer(one), other, labels=labels)
        for layer, one, other in zip(adapters_of(model)['feature'], ours, theirs, strict=True)
    ]
    assert len(levels) == 4
    assert losses['kd_feature_raw'].item() == pytest.approx(sum(levels).item() / 4, rel=1e-5)


def test_raw_terms_of_a_detector_are_means_over_its_pyramid(shared: Path) -> None:
    model = build(distilled_detector(shared)).train()
    losses = model(**detection_batch(), mode='loss')
    plain = build(detector()).train()
    ours, theirs = (
        outputs_of(side, 'bbox_head.gfl_cls', detection_batch(), 'tensor') for side in (plain, teacher_of(model))
    )
    levels = [kl_divergence(one, other, temperature=2.0) for one, other in zip(ours, theirs, strict=True)]
    assert len(levels) == 5
    assert losses['kd_cls_raw'].item() == pytest.approx(sum(levels).item() / 5, rel=1e-5)
    total, _ = model.parse_losses(losses)
    expected = losses['kd_task'] + 10 * losses['kd_neck_raw'] + 5 * losses['kd_cls_raw']
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    task, _ = plain.parse_losses(build(detector()).train()(**detection_batch(), mode='loss'))
    assert losses['kd_task'].item() == pytest.approx(task.item(), rel=1e-6)


def test_task_weight_alone_scales_the_task(shared: Path) -> None:
    batch = segmentation_batch()
    plain = build(segmentor(dropout=0.0)).train()(**batch, mode='loss')
    losses = build(distilled(shared, {}, segmentor(dropout=0.0), task_weight=0.25)).train()(**batch, mode='loss')
    assert list(losses) == list(plain)
    assert losses['decode.loss_ce'].item() == pytest.approx(0.25 * plain['decode.loss_ce'].item(), rel=1e-6)
    assert losses['decode.acc_seg'] == plain['decode.acc_seg']


def test_training_moves_the_student_towards_the_teacher(shared: Path) -> None:
    model = build(distilled(shared, FLAT, segmentor(dropout=0.0), task_weight=0.0)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    raw = []
    for _ in range(12):
        losses = model(**segmentation_batch(), mode='loss')
        optimizer.zero_grad()
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        raw.append(losses['kd_logits_raw'].item())
    assert raw[-1] < 0.7 * raw[0]


def test_positional_calls_distil_too(shared: Path) -> None:
    model = build(distilled(shared, FLAT, segmentor(dropout=0.0))).train()
    batch = segmentation_batch()
    one, other = model(**batch, mode='loss'), model(*batch.values(), 'loss')
    assert one['loss_kd_logits'].item() == other['loss_kd_logits'].item() > 0


# contract 4


def test_a_tap_that_does_not_fire_in_training_is_an_error(shared: Path) -> None:
    model = build(distilled(shared, FLAT)).train()
    head = model.decode_head
    head.cls_seg = lambda features: nn.functional.conv2d(features, head.conv_seg.weight, head.conv_seg.bias)
    with pytest.raises(TapError, match=r"every tap of the student to fire but \['decode_head.conv_seg'\] did not run"):
        model(**segmentation_batch(), mode='loss')


def test_a_silent_teacher_tap_is_an_error(shared: Path) -> None:
    model = build(distilled(shared, FLAT)).train()
    head = teacher_of(model).decode_head
    head.cls_seg = lambda features: nn.functional.conv2d(features, head.conv_seg.weight, head.conv_seg.bias)
    with pytest.raises(TapError, match=r"every tap of the teacher to fire but \['decode_head.conv_seg'\] did not run"):
        model(**segmentation_batch(), mode='loss')


@pytest.mark.parametrize('tap', ['backbone.layer1', 'backbone.layer2'])
def test_a_student_tap_without_gradient_is_an_error(shared: Path, tap: str) -> None:
    """Also where an adapter follows: it would learn to imitate the teacher on its own."""
    width = dict(student_tap=tap, teacher_tap='backbone.layer1') if tap == 'backbone.layer2' else dict(tap=tap)
    config = distilled(shared, dict(early=dict(width, loss=COSINE)), frozen=['backbone'])
    model = build(config).train()
    assert bool(adapters_of(model)) == (tap == 'backbone.layer1')
    with pytest.raises(TapError, match=rf"a gradient at student tap '{tap}' of pair 'early' but the tensor has none"):
        model(**segmentation_batch(), mode='loss')


def test_frozen_layers_below_a_tap_are_fine(shared: Path) -> None:
    pairs = dict(late=dict(tap='backbone', loss=COSINE))
    model = build(distilled(shared, pairs, frozen=['backbone.conv1', 'backbone.bn1', 'backbone.layer1'])).train()
    model.parse_losses(model(**segmentation_batch(), mode='loss'))[0].backward()
    assert model.backbone.layer4[0].downsample[0].weight.grad.abs().sum() > 0


def test_losses_without_gradient_need_none(shared: Path) -> None:
    model = build(distilled(shared, FLAT)).train()
    with torch.no_grad():
        assert model(**segmentation_batch(), mode='loss')['loss_kd_logits'] > 0


@pytest.mark.parametrize('tap', ['backbone.bn1', 'backbone.layer2.0.bn2'])
def test_an_in_place_relu_after_a_tap_does_not_reach_the_loss(shared: Path, tap: str) -> None:
    """mmseg's ResNet rectifies ``bn1`` in place, and adds the shortcut to ``bn2`` in place before it does."""
    model = stir(build(distilled(shared, dict(early=dict(tap=tap, loss=COSINE))))).train()
    batch = segmentation_batch()
    teacher, student = teacher_of(model), build(segmentor()).train()
    student.load_state_dict(model.state_dict())
    ours, theirs = outputs_of(student, tap, batch, 'tensor'), outputs_of(teacher, tap, batch, 'tensor')
    labels = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
    expected = cosine_distance(adapters_of(model)['early'][0](*ours), *theirs, labels=labels)
    losses = model(**batch, mode='loss')
    assert min(value.min() for value in (*ours, *theirs)) < 0
    assert losses['kd_early_raw'].item() == pytest.approx(expected.item(), rel=1e-5)
    losses['loss_kd_early'].backward()
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_an_overwritten_tap_that_the_probe_missed_is_an_error(shared: Path) -> None:
    model = build(distilled(shared, dict(early=dict(tap='backbone.bn1', loss=COSINE)))).train()
    distillation_of(model).student_probe = dataclasses.replace(
        distillation_of(model).student_probe, overwritten=frozenset()
    )
    with pytest.raises(TapError, match=r"student taps to stay as they are but \['backbone.bn1'\] are overwritten"):
        model(**segmentation_batch(), mode='loss')


def test_taps_leave_no_hooks_behind(shared: Path) -> None:
    model = build(distilled(shared, feature_and_logit_pairs())).train()
    model(**segmentation_batch(), mode='loss')
    assert not any(module._forward_hooks for side in (model, teacher_of(model)) for module in side.modules())


def test_a_run_without_hook_is_told_that_adapters_get_lost(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr('kdplugin.distill.distillation.print_log', lambda message, **_: said.append(message))
    model = build(distilled(shared, feature_and_logit_pairs())).train()
    for _ in range(2):
        model(**segmentation_batch(), mode='loss')
    assert len(said) == 1
    assert "custom_hooks=[dict(type='kdplugin.DistillationHook')]" in said[0]
