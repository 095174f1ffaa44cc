"""A probe finds shapes on real models and leaves no trace."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import build, detector, segmentor
from method_models import mask_rcnn, queries
from mmengine.model import BaseModule
from torch import Tensor, nn

from kdplugin.distill.probe import (
    PROPOSALS,
    as_evaluated,
    few_proposals,
    probe,
    probe_sizes,
    probed_once,
    synthetic_batch,
)
from kdplugin.errors import PathError, TapError
from kdplugin.weights.reading.io import hash_tensors

SMALL = [(64, 64)]


def test_shapes_of_a_segmentor() -> None:
    result = probe(build(segmentor()), ['backbone', 'decode_head.conv_seg', 'backbone.layer2.0'], 'student')
    assert result.mode == 'tensor'
    assert result.shapes == {
        'backbone': [(1, 8, 64, 64), (1, 16, 32, 32), (1, 32, 16, 16), (1, 64, 8, 8)],
        'decode_head.conv_seg': [(1, 11, 8, 8)],
        'backbone.layer2.0': [(1, 16, 32, 32)],
    }


def test_a_head_that_walks_a_pyramid_yields_one_shape_per_level() -> None:
    result = probe(build(detector()), ['neck', 'bbox_head.gfl_cls'], 'student')
    sizes = (32, 16, 8, 4, 2)
    assert result.shapes['neck'] == [(1, 16, size, size) for size in sizes]
    assert result.shapes['bbox_head.gfl_cls'] == [(1, 10, size, size) for size in sizes]


def test_taps_that_only_fire_in_training_are_probed_with_ground_truth() -> None:
    """mmseg's ``mode='tensor'`` runs no auxiliary head."""
    result = probe(build(segmentor(auxiliary=True)), ['auxiliary_head.conv_seg'], 'student', SMALL)
    assert result.mode == 'loss'
    assert result.shapes == {'auxiliary_head.conv_seg': [(1, 11, 4, 4)]}


def test_taps_that_fire_neither_without_nor_with_ground_truth_are_probed_by_predicting() -> None:
    """DINO's head is passed by in 'tensor', and in eval mode lacks what its loss asks for."""
    result = probe(build(queries('DINO')), ['bbox_head'], 'student', SMALL)
    assert result.mode == 'predict'
    assert result.shapes == {'bbox_head': [(2, 1, 6, 10), (2, 1, 6, 4)]}


class Repeated(nn.Module):
    """A layer that runs twice without training, as CondInst's head does, and once in it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor, samples: Any, mode: str) -> Any:
        once = self.layer(images)
        return {'loss': once.sum()} if mode == 'loss' else (once, self.layer(images))


def test_training_says_how_often_a_tap_runs() -> None:
    result = probe(Repeated(), ['layer'], 'student', SMALL)
    assert result.mode == 'loss'
    assert result.shapes == {'layer': [(1, 4, 64, 64)]}


@pytest.mark.parametrize('config', [segmentor(auxiliary=True), detector()], ids=['mmseg', 'mmdet'])
def test_synthetic_ground_truth_suits_the_losses(config: dict[str, Any]) -> None:
    model = build(config)
    inputs, samples = synthetic_batch(model, (128, 128), batch=2)
    total, _ = model.parse_losses(model(inputs, samples, mode='loss'))
    assert total.isfinite()
    assert total.requires_grad


def test_detectors_find_proposals_and_a_semantic_map_in_a_synthetic_batch() -> None:
    _, samples = synthetic_batch(build(detector()), (32, 48), batch=2)
    assert [sample.proposals.bboxes.tolist() for sample in samples] == [[[12.0, 8.0, 36.0, 24.0]]] * 2
    assert [tuple(sample.gt_sem_seg.sem_seg.shape) for sample in samples] == [(1, 32, 48)] * 2


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002, S311


def test_a_probe_leaves_modes_buffers_gradients_and_generators_as_they_were() -> None:
    model = build(segmentor(auxiliary=True)).train()
    model.backbone.layer1.eval()
    modes, tensors = [module.training for module in model.modules()], hash_tensors(model.state_dict())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    probe(model, ['auxiliary_head.conv_seg'], 'student', SMALL)
    assert draws() == expected
    assert [module.training for module in model.modules()] == modes
    assert hash_tensors(model.state_dict()) == tensors
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_modes_come_back_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout(), nn.ReLU().eval())
    with contextlib.suppress(RuntimeError), as_evaluated(model):
        assert not model[0].training
        raise RuntimeError
    assert [module.training for module in model] == [True, False]


def test_unknown_path_is_named_with_the_nearest_one() -> None:
    with pytest.raises(
        PathError, match=r"path of the teacher but got 'backbone\.layer5'.*Did you mean 'backbone\.layer"
    ):
        probe(build(segmentor()), ['backbone.layer5'], 'teacher')


class Unused(nn.Module):
    """A model with a layer that it never calls and one that is overwritten in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.idle, self.relu = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, inputs: Tensor, samples: Any = None, mode: str = 'tensor') -> Tensor:
        return self.last(self.relu(self.conv(inputs)))


def test_a_tap_that_never_fires_is_an_error() -> None:
    message = r"run once .* got TapError: .*\['idle'\] did not run .* \(on 64x64 in mode 'tensor', on 64x64 in mode"
    with pytest.raises(TapError, match=message):
        probe(Unused(), ['conv', 'idle'], 'student', SMALL)


def test_a_model_of_one_size_is_probed_at_the_size_of_its_preprocessor() -> None:
    student = segmentor()
    student['data_preprocessor']['size'] = (64, 64)
    student['backbone'] = dict(
        type='BEiT', img_size=(64, 64), embed_dims=16, num_layers=1, num_heads=2, out_indices=(0,)
    )
    student['decode_head'].update(in_channels=16, in_index=0)
    model = build(student)
    assert probe_sizes(model) == [(256, 256), (64, 64)]
    assert probe(model, ['decode_head.conv_seg'], 'student', probe_sizes(model)).shapes == {
        'decode_head.conv_seg': [(1, 11, 4, 4)]
    }
    with pytest.raises(TapError, match=r"RuntimeError: .* \(on 256x256 in mode 'tensor'"):
        probe(model, ['decode_head.conv_seg'], 'student')
    assert probe_sizes(build(detector(), initialise=False)) == [(256, 256)]


def test_a_model_that_refuses_small_images_is_probed_with_a_large_one() -> None:
    model = build(segmentor())

    def refuse(_module: Any, given: tuple[Any, ...]) -> None:
        if min(given[0].shape[-2:]) < 400:
            raise RuntimeError('input image is smaller than kernel')

    model.backbone.register_forward_pre_hook(refuse)  # type: ignore[union-attr]
    found = probe(model, ['decode_head.conv_seg'], 'student', [(64, 64), (256, 256)])
    assert (found.size, found.shapes) == ((512, 512), {'decode_head.conv_seg': [(1, 11, 16, 16)]})


class Uninitialised(BaseModule):
    """Runs with initialised weights only, as Sparse R-CNN: its first boxes have sizes below zero."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))
        self.conv, self.size, self.broken = nn.Conv2d(3, 4, 1), nn.Parameter(-torch.ones(1)), broken
        self.pretrained = True

    def init_weights(self) -> None:
        super().init_weights()
        assert not self.pretrained
        nn.init.ones_(self.size)

    def forward(self, inputs: Tensor, samples: Any = None, mode: str = 'tensor') -> Tensor:
        if self.size < 0 or self.broken:
            raise RuntimeError('boxes cannot have negative size')
        return self.conv(inputs)


def test_a_model_that_needs_its_initial_weights_is_probed_as_a_copy_that_has_them() -> None:
    model = Uninitialised()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert probe(model, ['conv'], 'student', SMALL).shapes == {'conv': [(1, 4, 64, 64)]}
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.is_init
    assert model.init_cfg['checkpoint'] == 'nowhere.pth'
    assert model.pretrained
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(TapError, match=r'run once .* got RuntimeError: boxes cannot have negative size \('):
        probe(Uninitialised(broken=True), ['conv'], 'student', SMALL)


def test_in_place_operations_after_a_tap_are_seen() -> None:
    result = probe(Unused(), ['conv', 'relu', 'last'], 'student', SMALL)
    assert result.overwritten == frozenset({'conv'})


def proposed(model: Any, paths: list[str]) -> tuple[list[int], Any]:
    """Return how many boxes a detector's second stage gets in a probe, and what the probe found."""
    counts, predict = [], model.rpn_head.predict

    def counting(*args: Any, **kwargs: Any) -> Any:
        results = predict(*args, **kwargs)
        counts.extend(len(one) for one in results)
        return results

    model.rpn_head.predict = counting
    try:
        return counts, probe(model, paths, 'teacher', SMALL)
    finally:
        del model.rpn_head.predict


def test_the_second_stage_gets_few_boxes_where_no_tap_sees_them() -> None:
    config = mask_rcnn()
    config['test_cfg']['rpn'].update(max_per_img=300, nms_pre=300)
    model: Any = build(config)
    before = model.rpn_head.test_cfg
    counts, quick = proposed(model, ['neck', 'rpn_head.rpn_cls'])
    assert counts == [PROPOSALS]
    assert model.rpn_head.test_cfg is before
    assert before.max_per_img == 300
    counts, whole = proposed(model, ['neck', 'rpn_head.rpn_cls', 'roi_head.bbox_head.fc_cls'])
    assert counts[0] > PROPOSALS
    assert {tap: whole.shapes[tap] for tap in quick.shapes} == quick.shapes


def test_few_boxes_stay_as_they_are_and_an_error_gives_them_back() -> None:
    model: Any = build(mask_rcnn())
    before = model.rpn_head.test_cfg
    before.max_per_img = PROPOSALS - 1
    with few_proposals(model, ['neck']):
        assert model.rpn_head.test_cfg is before
    before.max_per_img = 300
    with contextlib.suppress(RuntimeError), few_proposals(model, ['neck']):
        assert model.rpn_head.test_cfg.max_per_img == PROPOSALS
        raise RuntimeError
    assert model.rpn_head.test_cfg is before
    assert before.max_per_img == 300
    with few_proposals(nn.Linear(1, 1), ['']):
        pass


def test_the_same_probe_is_run_once_in_a_block_that_asks_for_it() -> None:
    model = Counted()
    for _ in range(2):
        probe(model, ['layer'], 'student', SMALL)
    plain, model.calls = model.calls, 0
    with probed_once():
        first = probe(model, ['layer'], 'student', SMALL)
        assert probe(model, ['layer'], 'teacher', SMALL) is first
        assert model.calls == plain // 2
        probe(model, ['layer'], 'student', [(32, 32)])
        probe(Counted(), ['layer'], 'student', SMALL)
        assert model.calls == plain
        with pytest.raises(PathError):
            probe(model, ['gone'], 'student', SMALL)
    probe(model, ['layer'], 'student', SMALL)
    assert model.calls == plain + plain // 2


class Counted(nn.Module):
    """Counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)
        self.calls = 0

    def forward(self, inputs: Tensor, samples: list[Any] | None = None, mode: str = 'tensor') -> Tensor:
        self.calls += 1
        return self.layer(inputs)
