"""How much each term counts: schedules, alpha, calibration, several teachers, an end, and terms that are not finite."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    KL,
    all_tensors,
    build,
    distilled,
    feature_and_logit_pairs,
    save_weights,
    segmentation_batch,
    segmentor,
)
from torch import nn

from kdplugin.distill import distillation as engine
from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.schedules import Moment
from kdplugin.distill.teachers.teacher import Teacher
from kdplugin.errors import ConfigError, NumericError
from kdplugin.weights.reading.io import hash_tensors

FLAT = dict(tap='decode_head.conv_seg', loss=KL)
DEEP = dict(tap='backbone', loss=COSINE)


def student_of(shared: Path, pairs: dict[str, Any], **more: Any) -> Any:
    """Return a student without dropout in training mode, and what it does at an iteration of 10."""
    return build(distilled(shared, pairs, segmentor(dropout=0.0), **more)).train()


def step(model: Any, iteration: int = 0, epoch: int | None = None, **batch: Any) -> dict[str, float]:
    """Run one step without moving the model and return its total and what it logs."""
    distillation_of(model).at(Moment(iteration, epoch, 10, None if epoch is None else 5))
    total, logged = model.parse_losses(model(**segmentation_batch(**batch), mode='loss'))
    return {name: float(value) for name, value in logged.items()} | {'total': float(total)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Which teacher was asked for which taps, run after run."""
    seen: list[tuple[str, list[str]]] = []
    outputs = Teacher.outputs

    def watched(self: Teacher, taps: Any, *args: Any) -> Any:
        seen.append((Path(self.checkpoint).stem, list(taps)))
        return outputs(self, taps, *args)

    monkeypatch.setattr(Teacher, 'outputs', watched)
    return seen


# schedules


def test_the_weight_of_the_moment_is_in_the_total_and_in_the_log(shared: Path) -> None:
    weight = dict(kind='linear', start=2, stop=1, end=5)
    model = student_of(shared, dict(a=dict(FLAT, weight=weight, warmup=2), b=dict(DEEP, weight=0.5, stop_after=3)))
    for iteration, (one, other) in {0: (1.0, 0.5), 2: (1.5, 0.5), 3: (1.25, 0.0), 9: (1.0, 0.0)}.items():
        found = step(model, iteration)
        assert (found['kd_a_weight'], found['kd_b_weight']) == (one, other)
        raw = found.get('kd_b_raw', 0.0)
        assert found['total'] == pytest.approx(found['kd_task'] + one * found['kd_a_raw'] + other * raw, rel=1e-6)
        assert found['loss_kd_a'] == pytest.approx(one * found['kd_a_raw'], rel=1e-6)
        assert ('kd_b_raw' in found) == (other > 0)
        assert 'loss_kd_b' in found


def test_a_schedule_without_a_counter_is_an_error(shared: Path) -> None:
    model = student_of(shared, dict(a=dict(FLAT, warmup=2)))
    with pytest.raises(ConfigError, match=r"the iteration for the weight of pair 'a', which changes over time, but"):
        model(**segmentation_batch(), mode='loss')


def test_alpha_moves_the_total_from_the_task_to_the_pairs(shared: Path) -> None:
    alpha = [dict(start=0.8, end=1, by_epoch=True), dict(kind='linear', start=0.7, stop=0.6, by_epoch=True)]
    model = student_of(shared, dict(a=dict(FLAT, weight=3)), alpha=alpha)
    plain = build(segmentor(dropout=0.0)).train()
    task = float(plain.parse_losses(plain(**segmentation_batch(), mode='loss'))[0])
    for epoch, share in ((0, 0.8), (1, 0.7), (4, 0.6)):
        found = step(model, epoch * 2, epoch)
        assert found['kd_a_weight'] == pytest.approx(3 * share)
        assert found['kd_task_weight'] == pytest.approx(1 - share)
        assert found['total'] == pytest.approx((1 - share) * task + share * 3 * found['kd_a_raw'], rel=1e-5)


def test_a_schedule_of_the_task_is_logged(shared: Path) -> None:
    model = student_of(shared, dict(a=FLAT), task_weight=dict(kind='linear', start=1, stop=0, end=5))
    found = [step(model, iteration) for iteration in (0, 2, 4)]
    assert [one['kd_task_weight'] for one in found] == [1, 0.5, 0]
    assert found[1]['kd_task'] == pytest.approx(found[0]['kd_task'] / 2, rel=1e-6)
    assert found[2]['total'] == pytest.approx(found[2]['loss_kd_a'], rel=1e-6)


# an end


def test_when_nothing_counts_any_more_the_step_is_the_students_own(
    shared: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher is not run, nothing is tapped, and the adapters still get a gradient, of zeros."""
    model = student_of(shared, {name: dict(pair, stop_after=4) for name, pair in feature_and_logit_pairs().items()})
    tapped: list[int] = []
    catch = engine.catch
    monkeypatch.setattr(engine, 'catch', lambda *args, **kwargs: tapped.append(len(args[1])) or catch(*args, **kwargs))
    step(model, 3)
    assert (len(asked), tapped) == (1, [2])
    distillation_of(model).at(Moment(4, max_iters=10))
    total, _ = model.parse_losses(model(**segmentation_batch(), mode='loss'))
    assert (len(asked), tapped) == (1, [2, 0])
    total.backward()
    plain = build(segmentor(dropout=0.0)).train()
    expected, _ = plain.parse_losses(plain(**segmentation_batch(), mode='loss'))
    expected.backward()
    assert torch.equal(total, expected)
    own = dict(model.named_parameters())
    assert all(torch.equal(own[name].grad, value.grad) for name, value in plain.named_parameters())
    adapters = list(adapters_of(model).parameters())
    assert len(adapters) == 8
    assert all(value.grad is not None and not value.grad.any() for value in adapters)


def test_a_teacher_runs_for_the_pairs_that_still_count(shared: Path, asked: list[Any]) -> None:
    model = student_of(shared, dict(a=dict(DEEP, stop_after=1), b=FLAT))
    step(model, 0)
    step(model, 1)
    assert [taps for _, taps in asked] == [['backbone', 'decode_head.conv_seg'], ['decode_head.conv_seg']]


# calibration


def test_target_ratio_gives_a_term_its_share_of_the_task(shared: Path) -> None:
    """Of the task loss as the student has it, whatever task_weight makes of it."""
    pairs = dict(a=dict(FLAT, target_ratio=0.3, calibration_iters=3), b=dict(DEEP, weight=1))
    model = student_of(shared, pairs, task_weight=0.5)
    found = [step(model, n, seed=n) for n in range(5)]
    assert found[0]['loss_kd_a'] == pytest.approx(0.3 * 2 * found[0]['kd_task'], rel=1e-5)
    mean = [sum(2 * one['kd_task'] for one in found[:3]), sum(one['kd_a_raw'] for one in found[:3])]
    assert [one['kd_a_weight'] for one in found[2:]] == pytest.approx([0.3 * mean[0] / mean[1]] * 3, rel=1e-5)
    calibration = distillation_of(model).pairs[0].calibration
    assert (calibration.seen, calibration.found) == (3, pytest.approx(0.3 * mean[0] / mean[1], rel=1e-5))


def test_state_brings_calibration_and_counts_back(shared: Path) -> None:
    pairs = dict(a=dict(FLAT, target_ratio=0.3, calibration_iters=3), b=dict(DEEP, on_nan='skip'))
    whole, cut, again = (student_of(shared, pairs) for _ in range(3))
    expected = [step(whole, n, seed=n) for n in range(5)]
    for n in range(2):
        step(cut, n, seed=n)
    distillation_of(cut).skipped['b'] = 7
    distillation_of(again).load_state(distillation_of(cut).state())
    found = [step(again, n, seed=n) for n in range(2, 5)]
    assert [one['kd_a_weight'] for one in found] == [one['kd_a_weight'] for one in expected[2:]]
    assert found[0]['kd_b_skipped'] == 7
    distillation_of(again).load_state(dict(calibrations={}, skipped={}))
    assert distillation_of(again).skipped == {}


# several teachers


@pytest.fixture
def two(shared: Path, tmp_path: Path) -> dict[str, Any]:
    """A config with two teachers, one of which counts half."""
    other = save_weights(segmentor(12), tmp_path / 'other.pth', seed=4)
    config = distilled(
        shared, dict(a=dict(FLAT, teacher='big'), b=dict(DEEP, teacher='other', weight=3)), segmentor(dropout=0.0)
    )
    big = config.pop('teacher')
    return dict(config, teachers=dict(big=big, other=dict(model=segmentor(12), checkpoint=other, weight=0.5)))


def test_each_pair_looks_at_its_own_teacher(shared: Path, two: dict[str, Any]) -> None:
    model = build(two).train()
    distillation = distillation_of(model)
    assert {name: one.module.backbone.conv1.out_channels for name, one in distillation.teachers.items()} == dict(
        big=16, other=12
    )
    assert str(adapters_of(model)['b']) == '8->12, 16->24, 32->48, 64->96'
    found = step(model)
    alone = student_of(shared, dict(a=FLAT))
    assert found['kd_a_raw'] == step(alone)['kd_a_raw']
    assert (found['kd_a_weight'], found['kd_b_weight']) == (1.0, 1.5)
    assert found['total'] == pytest.approx(found['kd_task'] + found['kd_a_raw'] + 1.5 * found['kd_b_raw'], rel=1e-6)
    assert distillation.teacher is None


def test_a_teacher_without_weight_is_not_run(two: dict[str, Any], asked: list[Any]) -> None:
    two['teachers']['other']['weight'] = dict(kind='linear', start=1, stop=0, end=4)
    model = build(two).train()
    assert [step(model, n)['kd_b_weight'] for n in (0, 3)] == [3, 0]
    assert [name for name, _ in asked] == ['segmentor', 'other', 'segmentor']
    two['teachers']['other']['weight'] = 0
    assert list(adapters_of(build(two))) == []


def test_all_weights_zero_is_no_kd_also_with_alpha_and_teachers(two: dict[str, Any], asked: list[Any]) -> None:
    plain = build(segmentor(dropout=0.0)).train()
    expected = plain(**segmentation_batch(), mode='loss')
    model = build(dict(two, alpha=0.0)).train()
    found = model(**segmentation_batch(), mode='loss')
    assert asked == []
    assert torch.equal(found['decode.loss_ce'], expected['decode.loss_ce'])
    assert hash_tensors(all_tensors(model)) == hash_tensors(all_tensors(plain))


# terms that are not finite


def broken(shared: Path, **pair: Any) -> Any:
    model = student_of(shared, dict(bad=dict(DEEP, **pair), good=FLAT))
    nn.init.constant_(adapters_of(model)['bad'][1].weight, float('nan'))
    return model


def test_a_nan_names_pair_taps_and_iteration(shared: Path) -> None:
    model = broken(shared)
    message = r"got NaN or infinity at pair 'bad' \('backbone'\) at iteration 6\. Check"
    with pytest.raises(NumericError, match=message):
        step(model, 6)


def test_a_nan_can_be_skipped_and_is_counted(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr('kdplugin.distill.distillation.print_log', lambda message, **_: said.append(message))
    model = broken(shared, on_nan='skip')
    distillation_of(model).attended = True
    expected = step(student_of(shared, dict(good=FLAT)), 0)
    for n in range(2):
        found = step(model, n)
        assert found['kd_bad_skipped'] == n + 1
        assert found['loss_kd_bad'] == 0
        assert 'kd_bad_raw' not in found
        assert found['total'] == expected['total']
    assert len(said) == 2
    assert said[1].startswith(
        "Expected a finite distance but got NaN or infinity at pair 'bad' ('backbone') at iteration 1. The term is "
        'left out of this step, 2 so far.'
    )
    model.parse_losses(model(**segmentation_batch(), mode='loss'))[0].backward()
    assert all(value.grad.isfinite().all() for value in model.parameters())


def test_a_finite_term_that_may_be_skipped_is_not(shared: Path) -> None:
    found = step(student_of(shared, dict(bad=dict(DEEP, on_nan='skip'), good=FLAT)))
    assert found['kd_bad_skipped'] == 0
    assert found['loss_kd_bad'] == found['kd_bad_raw'] > 0


@pytest.mark.slow
def test_a_stopped_step_takes_the_plain_students_time(shared: Path) -> None:
    """Processor time of whole steps, alternating; the median of the ratios of neighbours."""
    pairs = {name: dict(pair, stop_after=1) for name, pair in feature_and_logit_pairs().items()}
    models = [build(segmentor(32)).train(), build(distilled(shared, pairs, segmentor(32))).train()]
    distillation_of(models[1]).at(Moment(1, max_iters=10))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9) for model in models]
    batch, times = segmentation_batch(192), [[], []]
    for _ in range(40):
        for model, optimizer, seconds in zip(models, optimizers, times, strict=True):
            begin = time.process_time()
            optimizer.zero_grad()
            model.parse_losses(model(**batch, mode='loss'))[0].backward()
            optimizer.step()
            seconds.append(time.process_time() - begin)
    ratio = statistics.median(after / plain for plain, after in zip(*(one[10:] for one in times), strict=True))
    assert ratio <= 1.03
