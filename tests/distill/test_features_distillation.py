"""What a Runner may do to a student: mixed precision, checkpointed activations, converted norms, frozen parts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_fixtures import (
    COSINE,
    Forwards,
    all_tensors,
    build,
    detection_batch,
    distilled,
    distilled_detector,
    feature_and_logit_pairs,
    segmentation_batch,
    segmentor,
    stir,
    teacher_of,
)
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.distill.taps import catch
from kdplugin.errors import TapError
from kdplugin.losses import cosine_distance


def gradients(model: Any, batch: dict[str, Any]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Run one step and return what it logs and the gradient of every parameter."""
    total, logged = model.parse_losses(model(**batch, mode='loss'))
    total.backward()
    return {name: float(value) for name, value in logged.items()}, {
        name: value.grad for name, value in model.named_parameters()
    }


def nearly_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            value, other[name], rtol=1e-4, atol=1e-6, msg=lambda said, name=name: f'{name}: {said}'
        )


# mixed precision


def test_distances_are_computed_in_float32_from_what_autocast_left(shared: Path) -> None:
    """The student runs in bfloat16; its taps enter the adapters and the loss in float32."""
    model = build(
        distilled(shared, dict(deep=dict(tap='backbone.layer3', loss=COSINE)), segmentor(dropout=0.0))
    ).train()
    batch = segmentation_batch()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        with catch(model, ['backbone.layer3'], 'student') as ours:
            losses = model(**batch, mode='loss')
        theirs = distillation_of(model).teacher.outputs(['backbone.layer3'], (), batch)['backbone.layer3']
    assert [value.dtype for value in ours.tensors['backbone.layer3']] == [torch.bfloat16]
    labels = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
    adapted = adapters_of(model)['deep'][0](ours.tensors['backbone.layer3'][0].float())
    assert losses['kd_deep_raw'].dtype == torch.float32
    assert losses['kd_deep_raw'] == cosine_distance(adapted, theirs[0].float(), labels=labels)
    model.parse_losses(losses)[0].backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


# checkpointed activations


def by_mmengine(model: nn.Module) -> None:
    turn_on_activation_checkpointing(model, ['backbone.layer2', 'backbone.layer3'])


def by_torch(model: nn.Module) -> None:
    """The variant that torch advises, which keeps the graph inside."""
    for name in ('layer2', 'layer3'):
        module = model.get_submodule(f'backbone.{name}')
        module.forward = functools.partial(checkpoint, module.forward, use_reentrant=False)


OUTSIDE = dict(feature_and_logit_pairs(), whole=dict(tap='backbone.layer2', loss=COSINE))
WAYS = dict(
    mmengine=(by_mmengine, OUTSIDE, {}),
    torch=(by_torch, dict(OUTSIDE, inside=dict(tap='backbone.layer3.0.bn1', loss=COSINE)), {}),
    resnet=(lambda model: None, dict(OUTSIDE, block=dict(tap='backbone.layer2.1', loss=COSINE)), dict(with_cp=True)),
)


@pytest.mark.parametrize('way', WAYS)
def test_taps_fire_once_though_activations_are_computed_twice(shared: Path, way: str) -> None:
    """mmengine and torch wrap a module's forward; ResNet's own ``with_cp`` wraps the inside of its blocks."""
    turn_on, pairs, changes = WAYS[way]
    student = segmentor(dropout=0.0)
    plain = stir(build(distilled(shared, pairs, student))).train()
    student['backbone'] = dict(student['backbone'], **changes)
    kept = stir(build(distilled(shared, pairs, student))).train()
    kept.load_state_dict(plain.state_dict())
    adapters_of(kept).load_state_dict(adapters_of(plain).state_dict())
    turn_on(kept)
    calls = Forwards(kept.backbone.layer3[0].conv1)
    expected, found = gradients(plain, segmentation_batch()), gradients(kept, segmentation_batch())
    assert calls.count == 2
    nearly_equal(found[0], expected[0])
    nearly_equal(found[1], expected[1])


def test_a_tap_inside_a_block_that_keeps_no_graph_is_an_error(shared: Path) -> None:
    """Under reentrant checkpointing the inside of a block has no graph, so a pair there would train nothing."""
    student = segmentor(dropout=0.0)
    student['backbone'] = dict(student['backbone'], with_cp=True)
    model = build(distilled(shared, dict(inside=dict(tap='backbone.layer2.1.bn1', loss=COSINE)), student)).train()
    with pytest.raises(TapError, match=r"a gradient at student tap 'backbone\.layer2\.1\.bn1' of pair 'inside' but"):
        model(**segmentation_batch(), mode='loss')


# compiled students


def test_a_compiled_student_distils_alike_and_is_compiled_once(shared: Path) -> None:
    """Only the teacher, the adapters and the losses of pairs run as they are."""
    pairs = dict(deep=dict(tap='backbone.layer3', loss=COSINE), early=dict(tap='backbone.bn1', loss=COSINE))
    plain, model = (build(distilled(shared, pairs, segmentor(dropout=0.0))).train() for _ in range(2))
    graphs = []
    compiled = torch.compile(model.forward, backend='eager')
    counters.clear()
    for seed in range(3):
        batch = segmentation_batch(seed=seed)
        expected, found = plain(**batch, mode='loss'), compiled(**batch, mode='loss')
        nearly_equal({name: value.detach() for name, value in found.items()}, expected)
        graphs.append(counters['stats']['unique_graphs'])
    assert graphs[0] == graphs[2] > 0
    assert counters['stats']['calls_captured'] > 60
    model.parse_losses(found)[0].backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


# converted norms


def test_a_tap_on_a_norm_that_was_converted_since_still_fires(shared: Path) -> None:
    """``sync_bn='torch'`` of the Runner puts new modules in place of the BatchNorms. SyncBN trains on GPUs alone."""
    model = build(distilled(shared, dict(norm=dict(tap='backbone.layer3.0.bn1', loss=COSINE)))).eval()
    before = model(**segmentation_batch(), mode='loss')
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert isinstance(converted.backbone.layer3[0].bn1, nn.SyncBatchNorm)
    after = converted(**segmentation_batch(), mode='loss')
    assert after['kd_norm_raw'] == before['kd_norm_raw'] > 0
    assert not any(isinstance(module, nn.SyncBatchNorm) for module in teacher_of(model).modules())


# averaged weights


def test_an_average_is_of_the_student_and_never_runs_the_teacher(shared: Path) -> None:
    model = build(distilled(shared, feature_and_logit_pairs(), segmentor(dropout=0.0))).train()
    average = ExponentialMovingAverage(model, momentum=0.5)
    average.update_parameters(model)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    average.update_parameters(model)
    found = average.module.state_dict()
    assert distillation_of(average.module) is None
    assert list(found) == list(build(segmentor()).state_dict())
    for name, _ in build(segmentor()).named_parameters():
        assert torch.allclose(found[name], expected[name] + 0.5)
    assert not any('kd_' in key for key in average.module.train()(**segmentation_batch(), mode='loss'))


# frozen parts


def test_frozen_parts_keep_no_graph(shared: Path) -> None:
    """Nothing in front of the first trained layer is kept for a backward pass."""
    frozen = ['backbone.conv1', 'backbone.bn1', 'backbone.layer[12]']
    model = build(distilled(shared, feature_and_logit_pairs(), frozen=frozen)).train()
    statistics = {name: value.clone() for name, value in all_tensors(model).items() if 'running' in name}
    with catch(model, ['backbone.layer2', 'backbone.layer3'], 'student') as caught:
        losses = model(**segmentation_batch(), mode='loss')
    (frozen_output,), (trained,) = caught.tensors['backbone.layer2'], caught.tensors['backbone.layer3']
    assert frozen_output.grad_fn is None
    assert not frozen_output.requires_grad
    assert trained.requires_grad
    model.parse_losses(losses)[0].backward()
    moved = {
        name for name, value in all_tensors(model).items() if name in statistics and not value.equal(statistics[name])
    }
    assert {name.split('.')[1] for name in moved if name.startswith('backbone')} == {'layer3', 'layer4'}


def test_a_frozen_backbone_of_a_detector_leaves_the_heads_to_learn(shared: Path) -> None:
    model = build(distilled_detector(shared) | dict(frozen=['backbone'])).train()
    _, found = gradients(model, detection_batch())
    assert all((value is None) == name.startswith('backbone') for name, value in found.items())
    assert not any(module.training for module in model.backbone.modules())
