"""Adapters bring a student's maps to the teacher's channels and size, and nothing else.

N image, C channel, H W position.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kdplugin.distill.adapters import LevelAdapters, build_adapters
from kdplugin.distill.layouts import Layout
from kdplugin.errors import TapError

VECTOR, TOKENS, PATCHES, MAP = Layout('NC'), Layout('NLC'), Layout('NLC', prefix=1), Layout('NCHW')


def test_levels_that_agree_need_no_adapters() -> None:
    shapes = [(1, 16, 8, 8), (1, 32, 4, 4)]
    assert build_adapters(shapes, shapes, 'neck') is None
    assert build_adapters([(1, 16, 8, 8)], [(1, 16, 4, 4)], 'neck') is None
    assert build_adapters([(1, 10)], [(1, 10)], 'logits', [(VECTOR, VECTOR)]) is None
    assert build_adapters([(1, 50, 8)], [(1, 50, 8)], 'tokens', [(TOKENS, TOKENS)]) is None
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
    ('student', 'teacher', 'message'),
    [
        ((1, 10), (1, 20), r'maps \(N, C, H, W\)'),
        ((1, 10), (1, 10, 4, 4), r'maps \(N, C, H, W\)'),
        ((1, 49, 8), (1, 64, 8), r'maps \(N, C, H, W\)'),
        ((), (), 'maps, tokens or vectors'),
        ((4,), (4,), 'maps, tokens or vectors'),
    ],
)
def test_only_maps_are_adapted_without_layouts(
    student: tuple[int, ...], teacher: tuple[int, ...], message: str
) -> None:
    same = (1, 8, 4, 4)
    with pytest.raises(
        TapError, match=rf"{message} at pair 'x', level 1, but got shapes \(.*\) and \(.*\)\. Tap .*layers"
    ):
        build_adapters([same, student], [same, teacher], 'x')


@pytest.mark.parametrize(
    ('student', 'teacher', 'layouts', 'adapter'),
    [
        ((1, 10), (1, 20), (VECTOR, VECTOR), nn.Linear),
        ((1, 9, 10), (1, 9, 20), (TOKENS, TOKENS), nn.Linear),
        ((1, 17, 10), (1, 20, 8, 8), (PATCHES, MAP), nn.Linear),
        ((1, 10, 8, 8), (1, 17, 20), (MAP, PATCHES), nn.Conv2d),
        ((1, 8, 8, 10), (1, 20, 8, 8), (Layout('NHWC'), MAP), nn.Linear),
        ((1, 10, 9), (1, 20, 9), (Layout('NCL'), Layout('NCL')), nn.Conv1d),
        ((4, 16, 10), (1, 20, 8, 8), (Layout('windows', stride=4), MAP), nn.Linear),
    ],
)
def test_other_layouts_are_adapted_where_their_channels_are(
    student: tuple[int, ...], teacher: tuple[int, ...], layouts: tuple[Layout, Layout], adapter: type[nn.Module]
) -> None:
    (layer,) = adapters = build_adapters([student], [teacher], 'x', [layouts])
    assert type(layer) is adapter
    assert str(adapters) == '10->20'
    assert layouts[0].channels(layer(torch.zeros(student)).shape) == 20


@pytest.mark.parametrize(
    ('student', 'teacher', 'layouts', 'message'),
    [
        ((1, 9, 8), (1, 8, 3, 3), (TOKENS, MAP), 'tensors that can be laid on each other'),
        ((1, 8), (1, 8, 3, 3), (VECTOR, MAP), 'tensors that can be laid on each other'),
        ((1, 8), (1, 9, 8), (VECTOR, TOKENS), 'tensors that can be laid on each other'),
        ((1, 9, 8), (1, 4, 8), (TOKENS, TOKENS), 'equally many tokens'),
        ((1, 8, 9), (1, 4, 8), (Layout('NCL'), TOKENS), 'equally many tokens'),
    ],
)
def test_what_cannot_be_laid_on_each_other_is_an_error(
    student: tuple[int, ...], teacher: tuple[int, ...], layouts: tuple[Layout, Layout], message: str
) -> None:
    with pytest.raises(TapError, match=rf"{message} at pair 'x', level 0, .*but got"):
        build_adapters([student], [teacher], 'x', [layouts])


def test_levels_must_be_equally_many() -> None:
    with pytest.raises(ValueError, match='zip'):
        build_adapters([(1, 8, 4, 4)], [(1, 8, 4, 4), (1, 8, 2, 2)], 'x')
