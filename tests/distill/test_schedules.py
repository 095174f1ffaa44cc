"""Weights over time are what mmengine's schedulers would make of them, and depend on nothing but the counters."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmengine.optim.scheduler import CosineAnnealingParamScheduler, LinearParamScheduler

from kdplugin.distill.schedules import Moment, Phase, Weight, check_count, check_number, parse_schedule
from kdplugin.errors import ConfigError


def values(config: Any, iters: int, per_epoch: int = 5) -> list[float]:
    """Return the value in each iteration of a training by epochs."""
    schedule = parse_schedule(config, 'here')
    epochs = iters // per_epoch
    return [schedule.value(Moment(step, step // per_epoch, iters, epochs), 'here') for step in range(iters)]


def weights(iters: int = 20, per_epoch: int = 5, **settings: Any) -> list[float]:
    weight = Weight(parse_schedule(2, 'here'), **settings)
    return [weight.value(Moment(step, step // per_epoch, iters, iters // per_epoch), 'here') for step in range(iters)]


def test_a_number_needs_no_counter() -> None:
    schedule = parse_schedule(0.25, 'here')
    assert schedule.constant
    assert (schedule.value(None, 'here'), schedule.peak, str(schedule)) == (0.25, 0.25, '0.25')


@pytest.mark.parametrize('kind', ['linear', 'cosine'])
def test_a_phase_runs_as_the_scheduler_of_mmengine_does(kind: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    if kind == 'linear':
        other: Any = LinearParamScheduler(optimizer, 'lr', start_factor=0.9, end_factor=0.3, begin=2, end=9)
    else:
        optimizer.param_groups[0]['lr'] = 0.9
        other = CosineAnnealingParamScheduler(optimizer, 'lr', eta_min=0.3, T_max=6, begin=2, end=9)
    expected = []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        other.step()
    found = values(dict(kind=kind, start=0.9, stop=0.3, begin=2, end=9), 12, 4)
    assert found[2:] == pytest.approx(expected[2:], abs=1e-9)
    assert found[:3] == [0.9] * 3
    assert found[8:] == [0.3] * 4


def test_a_cosine_is_half_a_wave() -> None:
    found = values(dict(kind='cosine', start=1.0, stop=0.0), 10)
    assert found == pytest.approx([(1 + math.cos(math.pi * step / 9)) / 2 for step in range(10)], abs=1e-12)


def test_phases_follow_each_other_by_epoch() -> None:
    """The schedule of the seed system: 0.8 for one epoch, then from 0.7 down to 0.6 in the last."""
    found = values([dict(start=0.8, end=1, by_epoch=True), dict(kind='linear', start=0.7, stop=0.6, by_epoch=True)], 20)
    by_epoch = [0.8, 0.7, 0.65, 0.6]
    assert found == pytest.approx([value for value in by_epoch for _ in range(5)], abs=1e-12)


def test_a_gap_between_phases_holds_the_last_value() -> None:
    found = values(
        [dict(kind='linear', start=0, stop=1, end=3), dict(start=0.5, begin=6), dict(start=0, begin=2, by_epoch=True)],
        15,
    )
    assert found == [0, 0.5, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0]


def test_a_phase_of_one_step_is_its_stop() -> None:
    assert values(dict(kind='linear', start=0, stop=1, begin=2, end=3), 5) == [0, 0, 1, 1, 1]


def test_warm_up_grows_to_the_whole_weight_and_begins_above_zero() -> None:
    assert weights(warmup=4)[:6] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert weights(warmup=2, by_epoch=True)[:11] == pytest.approx([2 * min(n, 10) / 10 for n in range(1, 12)])


def test_stop_after_counts_what_was_trained() -> None:
    assert [value > 0 for value in weights(stop_after=3)] == [True] * 3 + [False] * 17
    assert [value > 0 for value in weights(stop_after=2, by_epoch=True)] == [True] * 10 + [False] * 10
    assert Weight(parse_schedule(1, 'x'), stop_after=0).peak == 0


def test_the_peak_is_the_largest_value_of_all_phases() -> None:
    weight = Weight(parse_schedule([dict(start=0.2, end=5), dict(kind='linear', start=0.1, stop=3)], 'x'), warmup=9)
    assert weight.peak == 3
    assert weight.at_peak().value(None, 'x') == 3


def test_a_weight_reads_as_it_was_meant() -> None:
    schedule = parse_schedule(
        [dict(start=0.8, end=1, by_epoch=True), dict(kind='cosine', start=1, stop=0, begin=7)], 'x'
    )
    assert str(Weight(schedule, 500, 9)) == (
        '0.8 until epoch 1, then cosine 1 to 0 from iteration 7, warm-up 500 iterations, stops after 9 iterations'
    )
    assert str(Weight(parse_schedule(2, 'x'), 1, by_epoch=True)) == '2, warm-up 1 epochs'


def test_without_a_counter_a_changing_weight_is_an_error() -> None:
    message = r"to know the iteration for pair 'x', which changes over time, but nobody has set it.*DistillationHook"
    with pytest.raises(ConfigError, match=message):
        Weight(parse_schedule(1, 'x'), warmup=3).value(None, "pair 'x'")
    with pytest.raises(ConfigError, match=message):
        parse_schedule(dict(kind='linear', start=0, stop=1), 'x').value(None, "pair 'x'")


def test_a_training_by_iterations_has_no_epochs() -> None:
    phase = Phase('linear', 0, 1, by_epoch=True)
    with pytest.raises(ConfigError, match=r'a training by epochs for a weight with by_epoch=True but it counts iter'):
        phase.value(Moment(3, max_iters=9))
    with pytest.raises(ConfigError, match=r'a training by epochs'):
        Weight(parse_schedule(1, 'x'), warmup=1, by_epoch=True).value(Moment(3, max_iters=9), 'x')


def test_a_schedule_without_end_needs_the_end_of_the_training() -> None:
    with pytest.raises(ConfigError, match=r'to know how long the training takes, .* Give the schedule an end'):
        Phase('linear', 0, 1).value(Moment(3))
    assert Phase('linear', 0, 1, end=5).value(Moment(3)) == 0.75


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (-0.1, 'Expected a finite weight >= 0 in here but got -0.1'),
        (float('nan'), 'a finite weight >= 0 in here but got nan'),
        (float('inf'), 'a finite weight >= 0 in here but got inf'),
        ('1', "a finite weight >= 0 in here but got '1'"),
        (None, 'a finite weight >= 0 in here but got None'),
        (True, 'a finite weight >= 0 in here but got True'),
        ([], r'a number, a dict or a list of dicts as weight in here but got \[\]'),
        ([0.1], r'a number, a dict or a list of dicts as weight in here but got \[0.1\]'),
        (dict(kind='linaer', start=0, stop=1), r"a kind of .* in here but got 'linaer'. Did you mean 'linear'"),
        (dict(strat=0), r"keys .* in the schedule of here but got 'strat'. Did you mean 'start'"),
        (dict(kind='linear', start=0), r'a finite weight >= 0 in stop in here but got None'),
        (dict(stop=1), r'a finite weight >= 0 in start in here but got None'),
        (dict(start=1, stop=2), r'a constant in here to stop at 1.0 but got 2.0. Write a linear one'),
        (dict(start=1, begin=-1), r'a whole number >= 0 as begin in here but got -1'),
        (dict(start=1, begin=3, end=3), r'a phase of here to end after its begin but got 1 from iteration 3 until'),
        ([dict(start=1), dict(start=2)], r'the phases of here one after the other but 2 follows 1'),
        ([dict(start=1, end=4), dict(start=2, begin=3)], r'one after the other but 2 from iteration 3 follows 1 until'),
        (
            [dict(start=1, end=4), dict(start=2, by_epoch=True)],
            r'one after the other but 2 follows 1 until iteration 4',
        ),
    ],
)
def test_mistakes_are_named(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_schedule(value, 'here')


def test_numbers_have_limits() -> None:
    with pytest.raises(ConfigError, match=r'a finite weight from 0 to 1 in alpha but got 1.5'):
        check_number(1.5, 'alpha', most=1.0)
    assert check_number(1, 'alpha', most=1.0) == 1.0
    with pytest.raises(ConfigError, match=r'a whole number >= 0 as warmup but got True'):
        check_count(True, 'warmup')
