from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_fixtures import build, detector, segmentor
from torch import Tensor, nn

from kdplugin.distill.probe import PROBE_SIZE
from kdplugin.errors import PathError, TapError
from kdplugin.migration.observe import observe, run_once


def test_levels_of_a_pyramid_are_named_at_the_size_of_training() -> None:
    model = build(detector())
    seen = observe(model, ['neck'], 'student', (800, 1344))
    (call,) = seen.calls['neck']
    assert [tuple(tensor.shape[2:]) for tensor in call.tensors] == [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]
    assert [seen.only_output(call, n) for n in range(5)] == [f'neck.fpn_convs.{n}' for n in range(5)]
    assert all(value.device.type == 'cpu' for value in model.parameters())


def test_a_module_that_runs_for_each_level_is_seen_each_time() -> None:
    seen = observe(build(detector()), ['bbox_head.gfl_cls'], 'student', (64, 64))
    assert len(seen.calls['bbox_head.gfl_cls']) == 5


class Odd(nn.Module):
    """A relu in place, called twice, and a value that the meta device has not."""

    def __init__(self, needs_values: bool = False) -> None:
        super().__init__()
        self.conv, self.block, self.relu, self.needs_values = (
            nn.Conv2d(3, 4, 1),
            nn.Identity(),
            nn.ReLU(True),
            needs_values,
        )
        self.late = nn.Identity()

    def forward(self, images: Tensor, samples: Any, mode: str) -> Tensor:
        x = self.relu(self.relu(self.conv(images)) + 1)
        if self.needs_values:
            float(x.sum())
        return self.late(x) * 1


def test_what_was_overwritten_since_is_no_output() -> None:
    seen, error = run_once(Odd().to('meta'), (8, 8))
    assert error is None
    first, second = seen.calls['relu']
    assert seen.only_output(first, 0) is None  # the convolution put it out before the relu wrote into it
    assert seen.only_output(second, 0) == 'late'
    assert seen.only_output(seen.calls['conv'][0], 0) == 'conv'


def test_a_model_that_needs_values_runs_on_the_cpu_on_a_small_image() -> None:
    assert observe(Odd(), ['late'], 'student', (64, 96)).size == (64, 96)
    assert observe(Odd(needs_values=True), ['late'], 'student', (64, 96)).size == PROBE_SIZE


def test_what_does_not_run_is_an_error() -> None:
    with pytest.raises(TapError, match=r"Expected modules \['block'\] of the teacher to run .* but got no call\."):
        observe(Odd(), ['block'], 'teacher', (8, 8))
    with pytest.raises(PathError, match=r"module path of the teacher but got 'blok'\. Did you mean 'block'"):
        observe(Odd(), ['blok'], 'teacher', (8, 8))


def test_random_numbers_and_modes_stay_as_they_are() -> None:
    model = build(segmentor()).train()
    state = torch.get_rng_state()
    observe(model, ['decode_head.conv_seg'], 'student', (48, 48))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.backbone.training
