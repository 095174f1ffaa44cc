"""A pair's config: which method it names, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from engine_fixtures import COSINE, KL
from mmengine.registry import MODELS
from torch import Tensor, nn

from kdplugin.distill.methods import Method, StepContext, TapLoss
from kdplugin.distill.pairs import check_weight, parse_pairs, setting_names
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
    assert (one.name, one.student_taps, one.teacher_taps, one.weight) == ('a', ('neck',), ('neck',), 1.0)
    assert (other.student_taps, other.teacher_taps, other.weight) == (('s',), ('t',), 3.0)
    assert (third.student_taps, third.teacher_taps) == (('x',), ('deep',))


def test_a_pair_without_type_compares_taps_by_a_loss() -> None:
    (pair,) = parse_pairs(dict(p=dict(tap='x', loss=KL)))
    assert isinstance(pair.method, TapLoss)
    assert (pair.method.label, pair.method.temperature, pair.method.name) == ('KLDivergenceLoss', 2.0, 'p')


def test_a_type_gets_its_settings_and_not_those_of_the_engine() -> None:
    (pair,) = parse_pairs(dict(p=dict(type='mmengine.TwiceSeen', tap='x', strength=2, weight=3)))
    assert isinstance(pair.method, TwiceSeen)
    assert (pair.method.strength, pair.weight, pair.method.label) == (2, 3.0, 'TwiceSeen')
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


@pytest.mark.parametrize('weight', [-0.1, float('nan'), float('inf'), '1', None, True])
def test_weight_must_be_a_number(weight: Any) -> None:
    with pytest.raises(ConfigError, match='Expected a finite weight >= 0 in here but got'):
        check_weight(weight, 'here')
