"""Tokens, maps and windows of one image are the same map, whatever order they come in.

N image, C channel, H W position, L token.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_fixtures import COSINE, build, distilled, segmentation_batch, segmentor
from torch import Tensor, nn

from kdplugin.distill.layouts import Layout, grid_of, layout_of, match_size, parse_layout, prefix_of
from kdplugin.distill.methods import StepContext, TapLoss
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError, TapError

IMAGE = (32, 48)


@pytest.fixture
def whole() -> Tensor:
    """A map of 8 x 12 positions, one for each 4 pixels of the image."""
    return torch.randn(2, 5, 8, 12, generator=torch.Generator().manual_seed(0))


def windows_of(grid: Tensor, side: int) -> Tensor:
    """Cut (N, C, H, W) into (N windows, side, side, C) by loops, padded on the right and below."""
    height, width = (-(-length // side) * side for length in grid.shape[2:])
    padded = nn.functional.pad(grid, (0, width - grid.shape[3], 0, height - grid.shape[2]))
    return torch.stack(
        [
            image[:, top : top + side, left : left + side].permute(1, 2, 0)
            for image in padded
            for top in range(0, height, side)
            for left in range(0, width, side)
        ]
    )


def test_every_layout_gives_the_same_map(whole: Tensor) -> None:
    tokens = whole.flatten(2).transpose(1, 2)
    extra = torch.full((2, 3, 5), 9.0)
    found = {
        Layout('NCHW'): whole,
        Layout('NHWC'): whole.permute(0, 2, 3, 1),
        Layout('NLC', prefix=0): tokens,
        Layout('NLC', prefix=3): torch.cat([extra, tokens], 1),
        Layout('windows', stride=4): windows_of(whole, 4),
    }
    for layout, tensor in found.items():
        assert torch.equal(layout.channels_first(tensor, IMAGE), whole)
        assert layout.channels(tensor.shape) == 5
        assert layout.is_map
    padded = windows_of(whole, 5)
    assert torch.equal(Layout('windows', stride=4).channels_first(padded, IMAGE), whole)
    assert torch.equal(Layout('windows', stride=4).channels_first(padded.flatten(1, 2), IMAGE), whole)


def test_tokens_without_grid_get_their_channels_second() -> None:
    tokens = torch.randn(2, 7, 5)
    assert torch.equal(Layout('NLC').channels_first(tokens, IMAGE), tokens.transpose(1, 2))
    for axes, tensor in {'NCL': tokens, 'NC': tokens[0]}.items():
        assert Layout(axes).channels_first(tensor, IMAGE) is tensor
        assert not Layout(axes).is_map


@pytest.mark.parametrize(
    ('tokens', 'image', 'grid'),
    [(256, (256, 256), (16, 16)), (2048, (512, 1024), (32, 64)), (70, (100, 150), (7, 10)), (1, (9, 9), (1, 1))],
)
def test_a_grid_has_the_sides_of_its_image(tokens: int, image: tuple[int, int], grid: tuple[int, int]) -> None:
    assert grid_of(tokens, image) == grid
    assert grid_of(tokens, image[::-1]) == grid[::-1]


@pytest.mark.parametrize(
    ('tokens', 'image', 'prefix'),
    [
        (256, (256, 256), 0), (257, (256, 256), 1), (261, (256, 256), 5), (197, (224, 224), 1), (201, (224, 224), 5),
        (100, (256, 256), None), (300, (256, 256), None), (2049, (512, 1024), 1), (50, (64, 64), None), (5, None, None),
    ],
)  # fmt: skip
def test_tokens_before_a_grid_are_counted(tokens: int, image: Any, prefix: int | None) -> None:
    assert prefix_of(tokens, image) == prefix


def test_layouts_follow_from_the_number_of_axes() -> None:
    assert layout_of((1, 5, 8, 12), IMAGE, None, False) == Layout('NCHW')
    assert layout_of((1, 97, 5), IMAGE, None, False) == Layout('NLC', prefix=1)
    assert layout_of((1, 97, 5), IMAGE, None, True) == Layout('NCL')
    assert layout_of((6, 16, 5), IMAGE, None, False) == Layout('NLC')
    assert layout_of((1, 5), IMAGE, None, False) == Layout('NC')
    assert layout_of((1, 300, 5), IMAGE, Layout('NLC', prefix=4), False) == Layout('NLC', prefix=4)
    with pytest.raises(TapError, match=r"a tensor of axes 'NHWC' but got shape \(1, 97, 5\). Correct the layout"):
        layout_of((1, 97, 5), IMAGE, Layout('NHWC'), False)


def test_layouts_are_read() -> None:
    assert parse_layout(None, 'x') is None
    assert parse_layout('NHWC', 'x') == Layout('NHWC')
    assert parse_layout(dict(axes='NLC', prefix=5), 'x') == Layout('NLC', 5)
    for value, message in {
        'NWHC': r"axes of .* in x but got 'NWHC'. Did you mean 'NHWC'",
        'windows': r"a stride of x but got none. Write dict\(axes='windows', stride=16\)",
    }.items():
        with pytest.raises(ConfigError, match=message):
            parse_layout(value, 'x')
    with pytest.raises(ConfigError, match=r"keys .* in x but got 'prefx'. Did you mean 'prefix'"):
        parse_layout(dict(axes='NLC', prefx=5), 'x')


def test_tokens_that_fit_on_no_grid_are_an_error() -> None:
    with pytest.raises(TapError, match=r'tokens on a grid of the image but got 0 for an image of \(32, 48\)'):
        Layout('NLC', prefix=4).channels_first(torch.zeros(1, 4, 5), IMAGE)
    with pytest.raises(TapError, match=r'2 x 3 windows for each image of \(32, 48\) pixels but got 5 windows of 4 x 4'):
        Layout('windows', stride=4).channels_first(torch.zeros(5, 16, 3), IMAGE)
    with pytest.raises(TapError, match=r'the size of the images and a stride to join windows but got none'):
        Layout('windows', stride=4).channels_first(torch.zeros(6, 16, 3), None)


# in a pair


def pair(ours: Tensor, theirs: Tensor, **settings: Any) -> tuple[TapLoss, nn.Module | None, StepContext]:
    """Return a prepared pair and the context of a step in which both sides put out these tensors."""
    method = TapLoss('p', tap='x', loss=COSINE, **settings)
    probes = [ProbeResult('tensor', {'x': [(1, *side.shape[1:])]}, frozenset(), IMAGE) for side in (ours, theirs)]
    owned = method.prepare(*probes, nn.Identity(), None)  # type: ignore[arg-type]
    context = StepContext({'x': [ours]}, {'x': [theirs]}, nn.Identity(), None, owned, IMAGE)  # type: ignore[arg-type]
    return method, owned, context


def test_a_transformer_and_a_convolutional_net_look_at_each_other(whole: Tensor) -> None:
    """Tokens with a class token against a map of another size, and the other way round."""
    small = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    tokens = torch.cat([torch.zeros(2, 1, 5), whole.flatten(2).transpose(1, 2)], 1)
    for ours, theirs, plain in ((tokens, small, (whole, small)), (small, tokens, (small, whole))):
        method, owned, context = pair(ours, theirs)
        assert owned is None
        expected, _, same = pair(*plain)
        assert torch.equal(method.distance(context), expected.distance(same))


def test_tokens_of_other_widths_get_one_linear_layer() -> None:
    ours, theirs = torch.randn(2, 97, 5, requires_grad=True), torch.randn(2, 96, 7)
    method, owned, context = pair(ours, theirs)
    (layer,) = owned
    assert str(owned) == '5->7'
    method.distance(context).backward()
    assert layer.weight.grad.abs().sum() > 0
    assert ours.grad[:, 1:].abs().sum() > 0
    assert not ours.grad[:, 0].any()


def test_queries_are_compared_one_by_one() -> None:
    ours, theirs = torch.randn(2, 300, 5), torch.randn(2, 300, 5)
    method, _, context = pair(ours, theirs)
    cosine = nn.functional.cosine_similarity(ours, theirs, dim=2)
    assert method.distance(context).item() == pytest.approx(1 - cosine.mean().item(), rel=1e-5)


def test_a_layout_is_not_for_relations() -> None:
    with pytest.raises(ConfigError, match=r"no layout in pair 'p' but got one. RKDLoss takes tensors as they come"):
        TapLoss('p', tap='x', loss=dict(type='kdplugin.RKDLoss'), student_layout='NHWC')


def test_a_vision_transformer_teaches_a_resnet(tmp_path: Any) -> None:
    """mmseg's own; its layers put out (N, 1 + L, D)."""
    wide = segmentor()
    wide['backbone'] = dict(
        type='VisionTransformer', img_size=(48, 48), patch_size=8, embed_dims=24, num_layers=2, num_heads=2,
        mlp_ratio=2, out_indices=(1,), with_cls_token=True, interpolate_mode='bicubic',
    )  # fmt: skip
    wide['decode_head'].update(in_channels=24, in_index=0)
    torch.save({'state_dict': build(wide).state_dict()}, tmp_path / 'vit.pth')
    pairs = dict(tokens=dict(student_tap='backbone.layer3', teacher_tap='backbone.layers.1', loss=COSINE))
    config = distilled(tmp_path, pairs) | dict(teacher=dict(model=wide, checkpoint=str(tmp_path / 'vit.pth')))
    model = build(config).train()
    losses = model(**segmentation_batch(), mode='loss')
    losses['loss_kd_tokens'].backward()
    assert 0 < losses['kd_tokens_raw'] < 2
    assert model.backbone.layer3[0].downsample[0].weight.grad.abs().sum() > 0


# sizes


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
