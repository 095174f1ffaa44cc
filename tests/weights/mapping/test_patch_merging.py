"""The order of merged 2x2 patches, observed on layers that merge them in the ways of three libraries."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdplugin.weights.mapping.patch_merging import merge_order

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


class Merging(nn.Module):
    """Four neighbours beside each other in an order of corners; [N, H, W, C] as in timm."""

    def __init__(self, order: tuple[int, ...], channels: int = 3, takes: str = 'NHWC') -> None:
        super().__init__()
        self.order, self.takes = order, takes
        self.norm, self.reduction = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor, *size: int) -> Tensor:
        if self.takes == 'NCHW':
            x = x.movedim(1, -1)
        if self.takes == 'NLC':
            height, width = size
            x = x.reshape(len(x), height, width, -1)
        parts = [x[:, CORNERS[i][0] :: 2, CORNERS[i][1] :: 2] for i in self.order]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class Sized(Merging):
    """[N, L, C] with the size as one argument, as in transformers and mmdet."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        return super().forward(x, *size)


class Unfolding(nn.Module):
    """mmdet's: nn.Unfold keeps the four values of a channel together."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        image = x.transpose(1, 2).unflatten(2, size)
        return self.norm(F.unfold(image, 2, stride=2).transpose(1, 2))


def expected(order: tuple[int, ...], channels: int = 3) -> list[int]:
    return [4 * channel + corner for corner in order for channel in range(channels)]


@pytest.mark.parametrize('order', list(itertools.permutations(range(4)))[::5])
def test_every_order_of_corners_is_observed(order: tuple[int, ...]) -> None:
    assert merge_order(Merging(order), 'norm') == expected(order)


def test_the_order_holds_for_the_way_a_layer_takes_its_patches() -> None:
    order = (0, 2, 1, 3)
    assert merge_order(Merging(order, takes='NCHW', channels=5), 'norm') == expected(order, 5)
    assert merge_order(Sized(order, takes='NLC'), 'norm') == expected(order)


def test_unfolding_keeps_channels_together() -> None:
    assert merge_order(Unfolding(), 'norm') == list(range(12))


def test_layers_are_found_inside_a_model_and_left_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ModuleDict({'down': Merging((0, 1, 2, 3))})).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert merge_order(model, '1.down.norm') == expected((0, 1, 2, 3))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('norm', ['missing.norm', 'plain.1', 'odd.norm', 'bare'])
def test_other_layers_have_no_order(norm: str) -> None:
    model = nn.ModuleDict(
        {
            'plain': nn.Sequential(nn.Linear(12, 12), nn.LayerNorm(12)),
            'odd': nn.ModuleDict({'norm': nn.LayerNorm(6)}),
            'bare': nn.GELU(),
        }
    )
    assert merge_order(model, norm) is None


def test_a_mixture_of_patches_has_no_order() -> None:
    class Averaging(Merging):
        def forward(self, x: Tensor, *size: int) -> Tensor:
            return super().forward((x + x.roll(1, 1)) / 2)

    assert merge_order(Averaging((0, 1, 2, 3)), 'norm') is None


def test_axes_that_are_moved_instead_of_sliced() -> None:
    class Moving(Merging):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            patches = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
            return self.reduction(self.norm(patches.permute(0, 1, 3, 4, 2, 5).flatten(3)))

    assert merge_order(Moving(()), 'norm') == expected((0, 2, 1, 3))
