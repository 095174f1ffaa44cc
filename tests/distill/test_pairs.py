"""A pair's config, and what it makes of the tensors on both sides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, KL
from torch import nn

from kdplugin.distill.pairs import adapters_for, check_shapes, check_weight, parse_pairs
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import cosine_distance, kl_divergence


def pair(loss: dict[str, Any] = COSINE, **more: Any) -> Any:
    return parse_pairs(dict(p=dict(dict(tap='x', loss=loss), **more)))[0]


def found(*shapes: tuple[int, ...]) -> ProbeResult:
    return ProbeResult('tensor', {'x': list(shapes)}, frozenset())


def test_one_tap_serves_both_sides_unless_a_side_has_its_own() -> None:
    one, other = parse_pairs(
        dict(a=dict(tap='neck', loss=COSINE), b=dict(student_tap='s', teacher_tap='t', loss=KL, weight=3))
    )
    assert (one.name, one.student_tap, one.teacher_tap, one.weight) == ('a', 'neck', 'neck', 1.0)
    assert (other.student_tap, other.teacher_tap, other.weight, other.loss.temperature) == ('s', 't', 3.0, 2.0)
    assert pair(teacher_tap='deep').student_tap == 'x'


@pytest.mark.parametrize(
    ('name', 'entry', 'message'),
    [
        ('p', dict(tap='x', loss=COSINE, wieght=1), r"keys .* in pair 'p' but got 'wieght'. Did you mean 'weight'"),
        ('p', dict(loss=COSINE), r"pair 'p' to have loss and tap .* but got \['loss'\]"),
        ('p', dict(student_tap='x', loss=COSINE), r"pair 'p' to have loss and tap"),
        ('p', dict(tap='x'), r"pair 'p' to have loss and tap .* but got \['tap'\]"),
        ('loss_p', dict(tap='x', loss=COSINE), r"without 'loss' or a dot but got 'loss_p'.*Rename the pair"),
        ('a.b', dict(tap='x', loss=COSINE), r"without 'loss' or a dot but got 'a\.b'"),
        ('p', dict(tap='x', loss=dict(type='kdplugin.FGDFocalLoss')),
         r"a loss in pair 'p' that can do with labels but FGDFocalLoss needs boxes, image_size"),
        ('p', dict(tap='x', loss=COSINE, weight=-1), r"a finite weight >= 0 in pair 'p' but got -1"),
        ('p', dict(tap='x', loss=dict(type='mmengine.Linear', in_features=1, out_features=1)),
         r"a distillation loss in pair 'p' but got Linear.*'kdplugin\.KLDivergenceLoss'"),
    ],
)  # fmt: skip
def test_config_mistakes_are_named(name: str, entry: dict[str, Any], message: str) -> None:
    from mmengine.registry import MODELS

    MODELS.register_module('Linear', force=True, module=nn.Linear)
    with pytest.raises(ConfigError, match=message):
        parse_pairs({name: entry})


@pytest.mark.parametrize('weight', [-0.1, float('nan'), float('inf'), '1', None, True])
def test_weight_must_be_a_number(weight: Any) -> None:
    with pytest.raises(ConfigError, match='Expected a finite weight >= 0 in here but got'):
        check_weight(weight, 'here')


def test_distance_is_the_mean_over_levels() -> None:
    torch.manual_seed(0)
    student = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 2, 2)]
    teacher = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 2, 2)]
    expected = [cosine_distance(one, other) for one, other in zip(student, teacher, strict=True)]
    result = pair().distance(student, teacher, None, None)
    assert result.item() == pytest.approx((expected[0].item() + expected[1].item()) / 2, rel=1e-6)
    assert result.dim() == 0


def test_student_maps_are_resized_to_the_teachers() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8)
    bigger = nn.functional.interpolate(student, size=(8, 8), mode='bilinear', align_corners=False)
    assert torch.equal(pair().distance([student], [teacher], None, None), cosine_distance(bigger, teacher))


def test_each_level_has_its_own_adapter() -> None:
    torch.manual_seed(0)
    adapters = nn.ModuleList([nn.Conv2d(2, 4, 1), nn.Conv2d(3, 4, 1)])
    student = [torch.randn(1, 2, 4, 4), torch.randn(1, 3, 4, 4)]
    teacher = [torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)]
    result = pair().distance(student, teacher, adapters, None)
    expected = torch.stack([cosine_distance(adapters[n](student[n]), teacher[n]) for n in range(2)]).mean()
    assert torch.equal(result, expected)


def test_labels_reach_the_loss() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, :2] = 255
    expected = kl_divergence(student[:, :, 2:], teacher[:, :, 2:], temperature=2.0)
    assert pair(KL).distance([student], [teacher], None, labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_distances_are_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    adapters = nn.ModuleList([nn.Conv2d(2, 4, 1)])
    student, teacher = torch.randn(1, 2, 4, 4), torch.randn(1, 4, 4, 4)
    expected = pair().distance([student], [teacher], adapters, None)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = pair().distance([student], [teacher], adapters, None)
    assert result.dtype == torch.float32
    assert torch.equal(result, expected)


def test_different_numbers_of_tensors_are_an_error() -> None:
    one = torch.zeros(1, 2, 3, 3)
    with pytest.raises(TapError, match=r"pair 'p' to see as many student as teacher tensors but got 2 and 1"):
        pair().distance([one, one], [one], None, None)
    with pytest.raises(TapError, match=r"pair 'p' .* but 'x' gives 1 and 'x' gives 2"):
        check_shapes(pair(), found((1, 2, 3, 3)), found((1, 2, 3, 3), (1, 2, 3, 3)))


def test_logits_of_other_classes_are_an_error_and_features_are_not() -> None:
    with pytest.raises(TapError, match=r"pair 'p' to predict the same classes but 'x' has 11 channels and 'x' has 21"):
        check_shapes(pair(KL), found((1, 11, 8, 8)), found((1, 21, 8, 8)))
    check_shapes(pair(), found((1, 11, 8, 8)), found((1, 21, 8, 8)))


def test_relations_are_compared_as_they_come() -> None:
    relations = pair(dict(type='kdplugin.RKDLoss'))
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 8, 9, 9)
    assert adapters_for(relations, found((4, 3, 5, 5)), found((4, 8, 9, 9))) is None
    got = relations.distance([student], [teacher], None, None)
    assert torch.equal(got, relations.loss(student, teacher))
    features = adapters_for(pair(), found((4, 3, 5, 5)), found((4, 8, 9, 9)))
    assert features is not None
    assert str(features) == '3->8'
