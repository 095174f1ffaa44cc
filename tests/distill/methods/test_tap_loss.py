"""The mean over levels of a loss, after the adapters, on the teacher's grid, with what the loss takes.

N image, C channel, H W position.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, KL, build, detection_batch, distilled, distilled_detector
from torch import Tensor, nn

from kdplugin.distill.methods import StepContext, TapLoss
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError, TapError
from kdplugin.losses import cosine_distance, focal_distance, kl_divergence


def method(loss: dict[str, Any] = COSINE) -> TapLoss:
    return TapLoss('p', tap='x', loss=loss)


def found(*shapes: tuple[int, ...]) -> ProbeResult:
    return ProbeResult('tensor', {'x': list(shapes)}, frozenset())


def distance(
    student: list[Tensor], teacher: list[Tensor], parameters: nn.Module | None = None, loss: Any = COSINE, **more: Any
) -> Tensor:
    context = StepContext({'x': student}, {'x': teacher}, nn.Identity(), None, parameters, **more)  # type: ignore
    return method(loss).distance(context)


def test_distance_is_the_mean_over_levels() -> None:
    torch.manual_seed(0)
    student = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 2, 2)]
    teacher = [torch.randn(2, 4, 8, 8), torch.randn(2, 4, 2, 2)]
    expected = [cosine_distance(one, other) for one, other in zip(student, teacher, strict=True)]
    result = distance(student, teacher)
    assert result.item() == pytest.approx((expected[0].item() + expected[1].item()) / 2, rel=1e-6)
    assert result.dim() == 0


def test_student_maps_are_resized_to_the_teachers() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 8, 8)
    bigger = nn.functional.interpolate(student, size=(8, 8), mode='bilinear', align_corners=False)
    assert torch.equal(distance([student], [teacher]), cosine_distance(bigger, teacher))


def test_each_level_has_its_own_adapter() -> None:
    torch.manual_seed(0)
    adapters = nn.ModuleList([nn.Conv2d(2, 4, 1), nn.Conv2d(3, 4, 1)])
    student = [torch.randn(1, 2, 4, 4), torch.randn(1, 3, 4, 4)]
    teacher = [torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)]
    expected = torch.stack([cosine_distance(adapters[n](student[n]), teacher[n]) for n in range(2)]).mean()
    assert torch.equal(distance(student, teacher, adapters), expected)


def test_labels_reach_the_loss() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, :2] = 255
    expected = kl_divergence(student[:, :, 2:], teacher[:, :, 2:], temperature=2.0)
    assert distance([student], [teacher], loss=KL, labels=labels).item() == pytest.approx(expected.item(), rel=1e-6)


def test_boxes_reach_a_loss_that_takes_them() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 4, 4, 6), torch.randn(1, 4, 4, 6)
    given = dict(boxes=[torch.tensor([[0.0, 0.0, 40.0, 30.0]])], image_size=(64, 96))
    loss = dict(type='kdplugin.FGDFocalLoss')
    assert torch.equal(distance([student], [teacher], loss=loss, **given), focal_distance(student, teacher, **given))
    with pytest.raises(ConfigError, match=r'Expected the boxes of 1 images .* but got none'):
        distance([student], [teacher], loss=loss)


def test_different_numbers_of_tensors_are_an_error() -> None:
    one = torch.zeros(1, 2, 3, 3)
    with pytest.raises(TapError, match=r"pair 'p' to see as many student as teacher tensors but got 2 and 1"):
        distance([one, one], [one])
    with pytest.raises(TapError, match=r"pair 'p' .* but 'x' gives 1 and 'x' gives 2"):
        method().check_shapes(found((1, 2, 3, 3)), found((1, 2, 3, 3), (1, 2, 3, 3)))


def test_logits_of_other_classes_are_an_error_and_features_are_not() -> None:
    with pytest.raises(TapError, match=r"pair 'p' to predict the same classes but 'x' has 11 channels and 'x' has 21"):
        method(KL).check_shapes(found((1, 11, 8, 8)), found((1, 21, 8, 8)))
    method().check_shapes(found((1, 11, 8, 8)), found((1, 21, 8, 8)))
    with pytest.raises(TapError, match=r"pair 'p' to see tensors with channels \(N, C, ...\) but got \(4,\) and"):
        method().check_shapes(found((4,)), found((4,)))


def test_relations_are_compared_as_they_come() -> None:
    relations = method(dict(type='kdplugin.RKDLoss'))
    student, teacher = torch.randn(4, 3, 5, 5), torch.randn(4, 8, 9, 9)
    shapes = found((4, 3, 5, 5)), found((4, 8, 9, 9))
    assert relations.prepare(*shapes, nn.Identity(), None) is None  # type: ignore[arg-type]
    got = distance([student], [teacher], loss=dict(type='kdplugin.RKDLoss'))
    assert torch.equal(got, relations.loss(student, teacher))
    features = method().prepare(*shapes, nn.Identity(), None)  # type: ignore[arg-type]
    assert str(features) == '3->8'


def test_a_loss_that_needs_what_no_batch_has_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('kdplugin.losses.FGDFocalLoss.needs', ('depth',))
    with pytest.raises(ConfigError, match=r'can do with labels, boxes, image_size but FGDFocalLoss needs depth'):
        method(dict(type='kdplugin.FGDFocalLoss'))


def test_boxes_of_a_detector_arrive(shared: Any) -> None:
    """FGD's focal part runs in a pair of mmdet's GFL, and is refused by mmseg's."""
    pair = dict(tap='neck', loss=dict(type='kdplugin.FGDFocalLoss'))
    model = build(distilled_detector(shared) | dict(pairs=dict(focal=pair))).train()
    assert model(**detection_batch(), mode='loss')['kd_focal_raw'] > 0
    message = r"mmdet as student of pair 'focal', because FGDFocalLoss needs boxes, but got EncoderDecoder"
    with pytest.raises(ConfigError, match=message):
        build(distilled(shared, dict(focal=dict(pair, tap='backbone.layer4'))))
