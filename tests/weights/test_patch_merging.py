"""The order in which a layer merges patches is read off the layer, and the layer is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kdplugin.weights.patch_merging import merge_order

C = 3


class Merging(nn.Module):
    """Merges 2x2 patches [N, H, W, C], the corners in an order of its own."""

    def __init__(self, corners: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.corners = corners
        self.norm = nn.LayerNorm(4 * C)
        self.reduction = nn.Linear(4 * C, 2 * C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.norm(torch.cat([x[:, h::2, w::2] for h, w in self.corners], -1)))


class Unfolding(Merging):
    """Takes [N, H * W, C] and the size, and keeps a channel's four values together."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        maps = x.transpose(1, 2).reshape(len(x), C, *size)
        return self.reduction(self.norm(nn.functional.unfold(maps, 2, stride=2).transpose(1, 2)))


class Elsewhere(Merging):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError('takes something else')


ROWS = ((0, 0), (0, 1), (1, 0), (1, 1))
COLUMNS = ((0, 0), (1, 0), (0, 1), (1, 1))


@pytest.mark.parametrize(('corners', 'ranks'), [(ROWS, (0, 1, 2, 3)), (COLUMNS, (0, 2, 1, 3))])
def test_corners_side_by_side(corners: tuple[tuple[int, int], ...], ranks: tuple[int, ...]) -> None:
    model = nn.ModuleDict({'down': Merging(corners)})
    assert merge_order(model, 'down.norm') == [4 * channel + rank for rank in ranks for channel in range(C)]


def test_channels_first() -> None:
    assert merge_order(nn.ModuleDict({'down': Unfolding(ROWS)}), 'down.norm') == list(range(4 * C))


@pytest.mark.parametrize('path', ['down.norm', 'none.norm', 'down.reduction', 'down.corners'])
def test_what_cannot_be_observed_is_none(path: str) -> None:
    assert merge_order(nn.ModuleDict({'down': Elsewhere(ROWS)}), path) is None


def test_the_layer_is_left_as_it_was() -> None:
    model = nn.ModuleDict({'down': Merging(COLUMNS)}).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    merge_order(model, 'down.norm')
    assert model['down'].norm.training
    assert not model['down'].norm._forward_pre_hooks
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
