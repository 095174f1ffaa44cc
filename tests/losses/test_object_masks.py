"""Laws and reference values of FGD's masks.

N image, C channel, H W position, M object.
"""

from __future__ import annotations

import loss_laws
import pytest
import torch
from loss_laws import random

from kdplugin.losses.object_masks import channel_attention, object_mask, spatial_attention


@pytest.mark.parametrize('case', loss_laws.golden('fgd'), ids=lambda case: case['name'])
def test_masks_of_the_authors_code(case: dict) -> None:
    grid = case['mask'].shape[1:]
    for boxes, expected in zip(case['boxes'], case['mask'], strict=True):
        mask = object_mask(torch.tensor(boxes).reshape(-1, 4), tuple(case['size']), tuple(grid))
        torch.testing.assert_close(mask.double(), expected, rtol=1e-6, atol=1e-7)


def test_an_object_sums_to_one_whatever_its_size() -> None:
    for box in ([9.0, 17.0, 15.0, 30.0], [1.0, 1.0, 63.0, 63.0], [40.0, 40.0, 40.5, 40.5]):
        mask = object_mask(torch.tensor([box]), (80, 80), (10, 10))
        assert float(mask.sum()) == pytest.approx(1)


def test_the_smallest_object_counts_where_they_overlap() -> None:
    large, small = [0.0, 0.0, 31.0, 31.0], [8.0, 8.0, 15.0, 15.0]
    for boxes in ([large, small], [small, large]):
        mask = object_mask(torch.tensor(boxes), (64, 64), (8, 8))
        assert mask[1, 1] == 1 / 4
        assert mask[3, 3] == 1 / 25
        assert mask[7, 7] == 0


def test_height_and_width_are_not_mixed_up() -> None:
    mask = object_mask(torch.tensor([[50.0, 1.0, 59.0, 2.0]]), (20, 60), (2, 6))
    assert mask.nonzero().tolist() == [[0, 5], [1, 5]]


def test_no_objects_give_an_empty_mask() -> None:
    assert torch.equal(object_mask(torch.zeros(0, 4), (64, 64), (8, 4)), torch.zeros(8, 4))


def test_attention_is_a_softmax_of_mean_one() -> None:
    features = random(2, 5, 3, 4)
    positions, channels = spatial_attention(features, 0.5), channel_attention(features, 0.5)
    by_hand = (
        12
        * (features.abs().mean(1) / 0.5).flatten(1).exp()
        / (features.abs().mean(1) / 0.5).flatten(1).exp().sum(1, keepdim=True)
    )
    torch.testing.assert_close(positions.flatten(1), by_hand)
    torch.testing.assert_close(positions.mean((1, 2)), torch.ones(2))
    expected = 5 * (features.abs().mean((2, 3)) / 0.5).softmax(1)
    torch.testing.assert_close(channels, expected)
    assert torch.equal(spatial_attention(torch.zeros(1, 5, 3, 4), 0.5), torch.ones(1, 3, 4))


def test_invalid_positions_are_no_part_of_the_attention() -> None:
    features, valid = random(2, 5, 3, 4), torch.ones(2, 3, 4, dtype=torch.bool)
    valid[..., 3:] = False
    masked = torch.where(valid[:, None], features, 0)
    positions = spatial_attention(masked, 0.5, valid)
    torch.testing.assert_close(positions[..., :3], spatial_attention(features[..., :3], 0.5))
    assert torch.equal(positions[..., 3], torch.zeros(2, 3))
    channels = channel_attention(masked, 0.5, valid)
    torch.testing.assert_close(channels, channel_attention(features[..., :3], 0.5))
    valid[1] = False
    assert torch.equal(spatial_attention(masked, 0.5, valid)[1], torch.zeros(3, 4))
    assert channel_attention(torch.where(valid[:, None], features, 0), 0.5, valid).isfinite().all()
