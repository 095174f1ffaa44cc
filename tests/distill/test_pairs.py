"""A pair's config: which method it names, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import COSINE, KL
from mmengine.registry import MODELS
from torch import Tensor, nn

from kdplugin.distill.methods import Method, StepContext, TapLoss
from kdplugin.distill.pairs import parse_pairs, setting_names
from kdplugin.distill.schedules import Moment
from kdplugin.errors import ConfigError


@MODELS.register_module()
class TwiceSeen(Method):
    """Stands for a method with settings of its own."""

    def __init__(self, name: str, *, strength: float = 1.0, **taps: Any) -> None:
        super().__init__(name, **taps)
        self.strength = strength

    def distance(self, context: StepContext) -> Tensor:
        raise NotImplementedError


MODELS.register_module('Linear', force=True, module=nn.Linear)


def test_one_tap_serves_both_sides_unless_a_side_has_its_own() -> None:
    one, other, third = parse_pairs(
        dict(
            a=dict(tap='neck', loss=COSINE),
            b=dict(student_tap='s', teacher_tap='t', loss=KL, weight=3),
            c=dict(tap='x', teacher_tap='deep', loss=COSINE),
        )
    )
    assert (one.name, one.student_taps, one.teacher_taps, one.weight.peak) == ('a', ('neck',), ('neck',), 1.0)
    assert (other.student_taps, other.teacher_taps, other.weight.peak) == (('s',), ('t',), 3.0)
    assert (third.student_taps, third.teacher_taps) == (('x',), ('deep',))


def test_a_pair_without_type_compares_taps_by_a_loss() -> None:
    (pair,) = parse_pairs(dict(p=dict(tap='x', loss=KL)))
    assert isinstance(pair.method, TapLoss)
    assert (pair.method.label, pair.method.temperature, pair.method.name) == ('KLDivergenceLoss', 2.0, 'p')


def test_a_type_gets_its_settings_and_not_those_of_the_engine() -> None:
    (pair,) = parse_pairs(dict(p=dict(type='mmengine.TwiceSeen', tap='x', strength=2, weight=3)))
    assert isinstance(pair.method, TwiceSeen)
    assert (pair.method.strength, pair.weight.peak, pair.method.label) == (2, 3.0, 'TwiceSeen')
    assert setting_names(TwiceSeen) == ['strength', 'tap', 'student_tap', 'teacher_tap']


@pytest.mark.parametrize(
    ('name', 'entry', 'message'),
    [
        ('p', dict(tap='x', loss=COSINE, wieght=1), r"keys .* in pair 'p' but got 'wieght'. Did you mean 'weight'"),
        ('p', dict(loss=COSINE), r"pair 'p' to have loss and tap .* but got \['loss'\]"),
        ('p', dict(student_tap='x', loss=COSINE), r"pair 'p' to have loss and tap"),
        ('p', dict(tap='x'), r"pair 'p' to have loss and tap .* but got \['tap'\]"),
        ('loss_p', dict(tap='x', loss=COSINE), r"without 'loss' or a dot but got 'loss_p'.*Rename the pair"),
        ('a.b', dict(tap='x', loss=COSINE), r"without 'loss' or a dot but got 'a\.b'"),
        ('p', dict(tap='x', loss=COSINE, weight=-1), r"a finite weight >= 0 in pair 'p' but got -1"),
        ('p', dict(tap='x', loss=dict(type='mmengine.Linear', in_features=1, out_features=1)),
         r"a distillation loss in pair 'p' but got Linear.*'kdplugin\.KLDivergenceLoss'"),
        ('task', dict(tap='x', loss=COSINE), r"another name than 'task' for a pair"),
        ('p', dict(tap='x', loss=COSINE, warmup=-1), r"a whole number >= 0 as warmup of pair 'p' but got -1"),
        ('p', dict(tap='x', loss=COSINE, stop_after=1.5), r"a whole number >= 0 as stop_after of pair 'p' but got 1.5"),
        ('p', dict(tap='x', loss=COSINE, by_epoch=True), r"warmup or stop_after beside by_epoch in pair 'p'"),
        ('p', dict(tap='x', loss=COSINE, target_ratio=0.3, weight=1), r"either weight or target_ratio in pair 'p'"),
        ('p', dict(tap='x', loss=COSINE, target_ratio=0), r"a target_ratio > 0 in pair 'p' but got 0"),
        ('p', dict(tap='x', loss=COSINE, target_ratio='x'), r"weight >= 0 in target_ratio of pair 'p' but got 'x'"),
        ('p', dict(tap='x', loss=COSINE, calibration_iters=3), r"a target_ratio beside calibration_iters in pair 'p'"),
        ('p', dict(tap='x', loss=COSINE, target_ratio=1, calibration_iters=0), r"calibration_iters > 0 in pair 'p'"),
        ('p', dict(tap='x', loss=COSINE, on_nan='go'), r"on_nan .* of \['stop', 'skip'\] in pair 'p' but got 'go'"),
        ('p', dict(type='kdplugin.TapLos', tap='x', loss=COSINE),
         r"a known type of pair 'p' but got 'kdplugin\.TapLos'. Did you mean 'kdplugin\.TapLoss'"),
        ('p', dict(type='mmengine.Linear', tap='x'), r"a known type of pair 'p' but got 'mmengine\.Linear'"),
        ('p', dict(type='mmengine.TwiceSeen', tap='x', strenght=1),
         r"keys \['strength', .* in pair 'p' but got 'strenght'. Did you mean 'strength'"),
        ('p', dict(type='mmengine.TwiceSeen', student_tap='x'),
         r"pair 'p' to have tap \(or student_tap and teacher_tap\) but got tap=None, student_tap='x'"),
    ],
)  # fmt: skip
def test_config_mistakes_are_named(name: str, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_pairs({name: entry})


def test_how_much_a_pair_counts_is_read_and_told() -> None:
    falling = dict(kind='linear', start=2, stop=1, end=10)
    one, other = parse_pairs(
        dict(
            a=dict(tap='x', loss=COSINE, weight=falling, warmup=4, stop_after=8, on_nan='skip'),
            b=dict(student_tap='x', teacher_tap='y', loss=COSINE, target_ratio=0.3, calibration_iters=5, stop_after=9),
        )
    )
    values = [one.weight.value(Moment(step), 'a') for step in (0, 3, 7, 8)]
    assert values == pytest.approx([0.5, 2 - 3 / 9, 2 - 7 / 9, 0])
    assert (one.how_much, one.calibration, one.on_nan) == (
        'linear 2 to 1 until iteration 10, warm-up 4 iterations, stops after 8 iterations', None, 'skip'
    )  # fmt: skip
    assert other.calibration is not None
    assert (other.calibration.ratio, other.calibration.iterations, other.on_nan) == (0.3, 5, 'stop')
    assert other.how_much == '0.3 of the task, over 5 iterations, stops after 9 iterations'
    assert (str(one), str(other)) == ("pair 'a' ('x')", "pair 'b' ('x' and 'y')")
