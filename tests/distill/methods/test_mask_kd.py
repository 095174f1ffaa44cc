"""Mask KD: what both mask heads say of the ground truth's boxes, computed by torchvision, and training on Mask R-CNN.

N image, C channel, H W position, M object.
"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from engine_fixtures import build, teacher_of
from method_laws import (
    batch_of,
    gradients_of_the_pair_alone,
    images_without_objects_are_welcome,
    learner,
    one_image_suffices,
    raw,
)
from method_laws import it_trains_the_student_and_its_own_parameters_only as it_trains
from method_models import dense, mask_rcnn
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torchvision.ops import roi_align

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.ground_truth import object_boxes
from kdplugin.distill.methods import MaskKD, StepContext
from kdplugin.distill.methods.mask_kd import mask_logits
from kdplugin.distill.teachers.preprocessing import TeacherInput
from kdplugin.errors import ConfigError, TapError

PAIR = dict(type='kdplugin.MaskKD')


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return learner(tmp_path_factory.mktemp('mask'), PAIR, mask_rcnn(), mask_rcnn(16, 24))


def by_hand(side: Any, inputs: Tensor, boxes: list[Tensor]) -> Tensor:
    """Return mask logits (M, K, H, W) of boxes smaller than 112 pixels, which all look at the first level."""
    features = side.neck(side.backbone(inputs))[0]
    values = roi_align(features, boxes, 6, spatial_scale=1 / 8, sampling_ratio=-1, aligned=True)
    head = side.roi_head.mask_head
    return head.conv_logits(F.relu(head.upsample(head.convs[0](values))))


def test_value_by_hand(model: nn.Module) -> None:
    """In float64: Bernoulli KL of the mask of each object's class, mean over pixels, then over objects."""
    batch = batch_of()
    value = raw(model.eval(), batch).detach()
    boxes = [sample.gt_instances.bboxes for sample in batch['data_samples']]
    assert all(float(box[2:].max()) < 112 for one in boxes for box in one)
    labels = torch.cat([sample.gt_instances.labels for sample in batch['data_samples']])
    with torch.no_grad():
        sides = [by_hand(side, batch['inputs'], boxes).double() for side in (model, teacher_of(model))]
    ours, theirs = (side[torch.arange(4), labels] for side in sides)
    p, q = theirs.sigmoid(), ours.sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean((1, 2)).mean()
    assert float(value) == pytest.approx(float(expected), rel=1e-4)
    model.train()


def test_training(model: nn.Module) -> None:
    assert not adapters_of(model)
    gradients_of_the_pair_alone(model, batch_of(), 'roi_head.mask_head.', own=False)
    reached = {
        name.split('.')[0] for name, value in model.named_parameters() if value.grad is not None and value.grad.any()
    }
    assert reached == {'backbone', 'neck', 'roi_head'}
    assert not any(value.grad is not None and value.grad.any() for value in model.roi_head.bbox_head.parameters())
    it_trains(model, mask_rcnn(), batch_of(padded=True))
    one_image_suffices(model, batch_of())
    images_without_objects_are_welcome(model, batch_of())


def test_features_of_half_precision(model: nn.Module) -> None:
    """Of both necks, as the engine hands them on; mmcv's proposals know no bfloat16 on the CPU."""
    batch, teacher = batch_of(), teacher_of(model)
    model.eval()
    values = []
    for enabled in (True, False):
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
            ours, theirs = (list(side.neck(side.backbone(batch['inputs']))) for side in (model, teacher))
        assert ours[0].dtype == (torch.bfloat16 if enabled else torch.float32)
        sides = ({'neck': [level.float() for level in side]} for side in (ours, theirs))
        context = StepContext(
            *sides, model, distillation_of(model).teacher, image_size=(96, 96),
            data_samples=batch['data_samples'], boxes=object_boxes(batch['data_samples']),
        )  # fmt: skip
        values.append(MaskKD('p').distance(context))
        values[-1].backward()
    torch.testing.assert_close(values[0].detach(), values[1].detach(), rtol=0.1, atol=1e-3)
    assert all(value.grad is None or value.grad.isfinite().all() for value in model.parameters())
    model.train()


def test_batches_without_objects_give_zero_and_images_without_take_nothing_away(model: nn.Module) -> None:
    value = raw(model, batch_of(objects=False))
    assert value.detach() == 0
    value.backward()
    model.eval()
    mixed = batch_of()
    mixed['data_samples'][1].gt_instances = mixed['data_samples'][1].gt_instances[:0]
    torch.testing.assert_close(raw(model, mixed), raw(model, batch_of(1)))
    model.train()


def test_a_student_that_is_its_teacher_learns_nothing(tmp_path: Path) -> None:
    same = learner(tmp_path, PAIR, mask_rcnn(), mask_rcnn()).eval()
    same.load_state_dict(teacher_of(same).state_dict(), strict=True)
    assert raw(same, batch_of()).abs() < 1e-6


def test_teachers_of_finer_masks_and_without_classes(tmp_path: Path) -> None:
    student, teacher = mask_rcnn(agnostic=True), mask_rcnn(16, agnostic=True)
    teacher['roi_head']['mask_roi_extractor']['roi_layer']['output_size'] = 12
    model = learner(tmp_path, PAIR, student, teacher)
    gradients_of_the_pair_alone(model, batch_of(), 'roi_head.mask_head.', own=False)


def test_boxes_are_scaled_as_the_teachers_images_are(model: nn.Module) -> None:
    rois = torch.tensor([[1.0, 2.0, 4.0, 10.0, 20.0]])
    teacher = SimpleNamespace(input=TeacherInput(input_size=(192, 48)))
    context = StepContext({}, {}, model, teacher, image_size=(96, 96))  # type: ignore[arg-type]
    assert MaskKD._as_teacher_sees(context, rois).tolist() == [[1, 1, 8, 5, 40]]
    same = StepContext({}, {}, model, distillation_of(model).teacher, image_size=(96, 96))
    assert torch.equal(MaskKD._as_teacher_sees(same, rois), rois)


def test_a_teacher_that_sees_larger_images(tmp_path: Path) -> None:
    larger = learner(tmp_path, PAIR, mask_rcnn(), mask_rcnn(16), scale=2.0)
    assert distillation_of(larger).teacher.input.scale == 2.0
    gradients_of_the_pair_alone(larger, batch_of(), 'roi_head.mask_head.', own=False)


def cascade(**settings: Any) -> dict[str, Any]:
    """Return a Cascade Mask R-CNN of two stages."""
    config = mask_rcnn(**settings)
    heads = {key: [copy.deepcopy(config['roi_head'][key]) for _ in range(2)] for key in ('bbox_head', 'mask_head')}
    config['roi_head'].update(heads, type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 0.5])
    config['train_cfg']['rcnn'] = [copy.deepcopy(config['train_cfg']['rcnn']) for _ in range(2)]
    return ConfigDict(config, type='CascadeRCNN')


def test_the_last_mask_head_of_a_cascade_teaches_and_learns(tmp_path: Path) -> None:
    model = learner(tmp_path, PAIR, cascade(), cascade(width=16))
    gradients_of_the_pair_alone(model, batch_of(), 'roi_head.mask_head.1.', own=False)
    assert not any(value.grad is not None and value.grad.any() for value in model.roi_head.mask_head[0].parameters())
    features = [torch.randn(1, 16, size, size) for size in (12, 6, 3, 2, 1)]
    rois = torch.tensor([[0.0, 4.0, 4.0, 60.0, 60.0]])
    expected = model.roi_head._mask_forward(1, features, rois)['mask_preds']
    assert torch.equal(mask_logits(model.roi_head, features, rois), expected)


def test_a_context_without_boxes_gives_zero() -> None:
    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    context = StepContext({'neck': [features]}, {'neck': [features]}, nn.Identity(), None, boxes=[torch.zeros(0, 4)])
    value = MaskKD('p').distance(context)
    (gradient,) = torch.autograd.grad(value, features)
    assert value.detach() == 0
    assert not gradient.any()


def test_settings_and_their_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected a finite temperature of pair 'p' > 0 but got 0"):
        MaskKD('p', temperature=0)
    with pytest.raises(TapError, match=r"mask heads of pair 'p' to score the same classes but got 10 and 7"):
        learner(tmp_path, PAIR, mask_rcnn(), mask_rcnn(classes=7))
    message = r"Expected an RoI head with masks in the student of pair 'p' but got (FPN|StandardRoIHead)\. Use"
    with pytest.raises(ConfigError, match=message):
        learner(tmp_path, dict(PAIR, head='neck'), dense('GFL'), dense('GFL'))
    without = mask_rcnn()
    for key in ('mask_head', 'mask_roi_extractor'):
        del without['roi_head'][key]
    assert not build(without, initialise=False).roi_head.with_mask
    with pytest.raises(ConfigError, match=message):
        learner(tmp_path, PAIR, dict(without, type='FasterRCNN'), mask_rcnn())
