"""Contract 1: the teacher is a guest."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_fixtures import (
    all_tensors,
    build,
    detection_batch,
    detector,
    distilled_detector,
    kd_segmentor,
    segmentation_batch,
    segmentor,
    teacher_of,
)
from mmengine.model import ExponentialMovingAverage
from torch import nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distillation import taps_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.weights.reading.io import hash_tensors


def test_the_teacher_is_in_no_list_of_the_model(both: tuple[nn.Module, nn.Module]) -> None:
    kd = both[1]
    hidden = {id(item) for item in (*teacher_of(kd).modules(), *all_tensors(teacher_of(kd)).values())}
    assert hidden.isdisjoint(id(item) for item in (*kd.modules(), *all_tensors(kd).values()))
    assert hidden.isdisjoint(id(value) for value in kd.state_dict(keep_vars=True).values())


def test_train_and_casts_do_not_reach_the_teacher(both: tuple[nn.Module, nn.Module]) -> None:
    kd = both[1]
    teacher = teacher_of(kd)
    before = hash_tensors(teacher.state_dict())
    kd.train().half().requires_grad_(True)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert hash_tensors(teacher.state_dict()) == before


def test_dropout_and_drop_path_of_the_teacher_rest_while_the_student_trains(shared: Path, tmp_path: Path) -> None:
    """Two training steps on one batch see one teacher, although it has both kinds of noise."""
    wide = segmentor(16, dropout=0.5)
    wide['backbone'] = dict(
        type='MixVisionTransformer', embed_dims=8, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
        patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3), mlp_ratio=2, drop_rate=0.2,
        attn_drop_rate=0.2, drop_path_rate=0.9,
    )  # fmt: skip
    wide['decode_head'].update(in_channels=16, in_index=3)
    torch.save({'state_dict': build(wide).state_dict()}, tmp_path / 'noisy.pth')
    config = kd_segmentor(shared) | dict(teacher=dict(model=wide, checkpoint=str(tmp_path / 'noisy.pth')))
    model = build(config).train()
    batch = segmentation_batch()
    distillation = distillation_of(model)
    taps = taps_of(distillation.active, 'teacher')
    outputs = [distillation.teacher.outputs(taps, (), dict(batch, mode='loss')) for _ in range(2)]
    for tap in outputs[0]:
        for one, other in zip(outputs[0][tap], outputs[1][tap], strict=True):
            assert torch.equal(one, other)
    model(**batch, mode='loss')
    assert not any(module.training for module in teacher_of(model).modules())


def test_the_teacher_is_bit_identical_after_training(both: tuple[nn.Module, nn.Module]) -> None:
    kd = both[1].train()
    is_detector = type(kd).__name__ == 'GFL'
    before, student = hash_tensors(teacher_of(kd).state_dict()), hash_tensors(kd.state_dict())
    optimizer = torch.optim.SGD(kd.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(3):
        batch = detection_batch(seed=step) if is_detector else segmentation_batch(seed=step)
        total, _ = kd.parse_losses(kd(**batch, mode='loss'))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert hash_tensors(teacher_of(kd).state_dict()) == before
    assert all(parameter.grad is None for parameter in teacher_of(kd).parameters())
    assert hash_tensors(kd.state_dict()) != student
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in adapters_of(kd).parameters())


@pytest.mark.parametrize('way', ['deepcopy', 'pickle', 'ema'])
def test_copies_are_plain_students_without_teacher(both: tuple[nn.Module, nn.Module], way: str) -> None:
    plain, kd = both
    teacher = teacher_of(kd)
    twin = {
        'deepcopy': copy.deepcopy,
        'pickle': lambda model: pickle.loads(pickle.dumps(model)),
        'ema': lambda model: ExponentialMovingAverage(model).module,
    }[way](kd)
    assert distillation_of(twin) is None
    assert isinstance(twin, type(plain))
    assert hash_tensors(twin.state_dict()) == hash_tensors(kd.state_dict())
    size = sum(value.numel() for value in all_tensors(kd).values())
    assert len(pickle.dumps(twin)) < 4 * size + sum(value.nbytes for value in teacher.state_dict().values())
    batch = detection_batch() if type(kd).__name__ == 'GFL' else segmentation_batch()
    torch.manual_seed(0)
    expected = plain.train()(**batch, mode='loss')
    torch.manual_seed(0)
    found = twin.train()(**batch, mode='loss')
    assert {name: plain.parse_losses({name: value})[1][name] for name, value in found.items()} == {
        name: plain.parse_losses({name: value})[1][name] for name, value in expected.items()
    }
    assert distillation_of(kd).teacher.module is teacher
    assert distillation_of(copy.deepcopy(twin)) is None


def test_building_draws_no_random_numbers_of_its_own(shared: Path) -> None:
    def next_numbers(config: dict[str, Any]) -> tuple[float, ...]:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        build(config, initialise=False)
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002, S311

    assert next_numbers(kd_segmentor(shared)) == next_numbers(segmentor())
    assert next_numbers(distilled_detector(shared)) == next_numbers(detector())
