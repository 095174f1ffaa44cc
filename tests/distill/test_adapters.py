"""Adapters bring a student's maps to the teacher's channels and size, and nothing else.

N image, C channel, H W position.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from kdplugin.distill.adapters import LevelAdapters, build_adapters, match_size
from kdplugin.errors import TapError


def test_levels_that_agree_need_no_adapters() -> None:
    shapes = [(1, 16, 8, 8), (1, 32, 4, 4)]
    assert build_adapters(shapes, shapes, 'neck') is None
    assert build_adapters([(1, 16, 8, 8)], [(1, 16, 4, 4)], 'neck') is None
    assert build_adapters([(1, 10)], [(1, 10)], 'logits') is None
    assert build_adapters([(1, 50, 8)], [(1, 50, 8)], 'tokens') is None
    assert build_adapters([], [], 'none') is None


def test_each_level_gets_what_it_needs() -> None:
    student, teacher = [(1, 24, 8, 8), (1, 40, 4, 4), (1, 96, 2, 2)], [(1, 512, 8, 8), (1, 40, 4, 4), (1, 64, 4, 4)]
    adapters = build_adapters(student, teacher, 'neck')
    assert isinstance(adapters, LevelAdapters)
    assert str(adapters) == '24->512, =, 96->64'
    for layer, ours, theirs in zip(adapters, student, teacher, strict=True):
        assert layer(torch.zeros(ours)).shape[:2] == theirs[:2]
    assert isinstance(adapters[1], nn.Identity)
    assert sum(value.numel() for value in adapters.parameters()) == (24 + 1) * 512 + (96 + 1) * 64
    assert all(value.requires_grad for value in adapters.parameters())


def test_a_batch_of_another_size_passes() -> None:
    adapters = build_adapters([(1, 3, 8, 8)], [(1, 5, 8, 8)], 'x')
    assert adapters[0](torch.zeros(4, 3, 6, 10)).shape == (4, 5, 6, 10)


@pytest.mark.parametrize(
    ('student', 'teacher'),
    [((1, 10), (1, 20)), ((1, 10), (1, 10, 4, 4)), ((1, 49, 8), (1, 64, 8)), ((), ()), ((4,), (4,))],
)
def test_only_maps_are_adapted(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    same = (1, 8, 4, 4)
    with pytest.raises(
        TapError, match=r"maps \(N, C, H, W\) at pair 'x', level 1, but got shapes \(.*\) and \(.*\)\. Tap layers"
    ):
        build_adapters([same, student], [same, teacher], 'x')


def test_levels_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match='zip'):
        build_adapters([(1, 8, 4, 4)], [(1, 8, 4, 4), (1, 8, 2, 2)], 'x')


def test_a_map_of_the_same_size_passes_untouched() -> None:
    student = torch.randn(2, 3, 4, 5)
    assert match_size(student, torch.zeros(2, 7, 4, 5)) is student
    tokens = torch.randn(2, 50, 8)
    assert match_size(tokens, torch.zeros(2, 40, 8)) is tokens


@pytest.mark.parametrize('size', [(8, 10), (2, 3), (7, 4)])
def test_a_map_takes_height_and_width_of_the_teacher(size: tuple[int, int]) -> None:
    student = torch.randn(2, 3, 4, 5, requires_grad=True)
    resized = match_size(student, torch.zeros(2, 7, *size))
    assert resized.shape == (2, 3, *size)
    resized.sum().backward()
    assert float(student.grad.sum()) == pytest.approx(resized.numel())


def test_resizing_is_bilinear_between_pixel_centres() -> None:
    """Doubling [0, 4]: centres at 1/4 and 3/4 of the way give 0, 1, 3, 4."""
    student = torch.tensor([0.0, 4.0]).reshape(1, 1, 1, 2)
    assert match_size(student, torch.zeros(1, 1, 1, 4)).flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize('value', [0.0, -2.5])
def test_a_constant_map_stays_constant(value: Any) -> None:
    resized = match_size(torch.full((1, 2, 3, 5), value), torch.zeros(1, 2, 7, 4))
    torch.testing.assert_close(resized, torch.full((1, 2, 7, 4), value))
