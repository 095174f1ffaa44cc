"""What every loss inherits: one shape on both sides, and means that leave ignored pixels out.

N image, H W position.
"""

from __future__ import annotations

import pytest
import torch

from kdplugin.errors import TapError
from kdplugin.losses.base import DistillationLoss, check_same_shape, mean_over_valid


def test_mean_without_labels_counts_everything() -> None:
    values = torch.arange(12.0).reshape(2, 2, 3)
    labels = torch.full((2, 2, 3), 255)
    assert mean_over_valid(values, None, 255) == 5.5
    assert mean_over_valid(values, labels, None) == 5.5


def test_mean_leaves_ignored_pixels_out() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 100.0]]])
    labels = torch.tensor([[[0, 7], [0, 255]]])
    assert mean_over_valid(values, labels, 255) == 2
    assert mean_over_valid(values, labels, 7) == pytest.approx(104 / 3)
    assert mean_over_valid(values, labels, 0) == 51


def test_images_weigh_by_their_valid_pixels() -> None:
    values = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    labels = torch.tensor([[[255, 255], [255, 0]], [[0, 0], [0, 255]]])
    assert mean_over_valid(values, labels, 255) == 0.75


def test_ignored_values_may_be_anything() -> None:
    values = torch.tensor([[[1.0, float('nan')], [float('inf'), 3.0]]])
    labels = torch.tensor([[[0, 255], [255, 0]]])
    assert mean_over_valid(values, labels, 255) == 2


def test_no_valid_pixel_gives_zero_with_a_gradient_path() -> None:
    values = torch.ones(1, 2, 2, requires_grad=True)
    result = mean_over_valid(values, torch.full((1, 2, 2), 255), 255)
    result.backward()
    assert result == 0
    assert torch.equal(values.grad, torch.zeros(1, 2, 2))


def test_labels_are_brought_to_the_grid_of_the_values_by_nearest_neighbour() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    coarse = torch.tensor([[[255, 0]]])
    assert mean_over_valid(values, coarse, 255) == 3
    assert mean_over_valid(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), coarse, 255) == 3.5
    fine = torch.tensor([[[0, 0, 255, 255], [0, 0, 255, 255], [0, 0, 0, 0], [0, 0, 0, 0]]])
    assert mean_over_valid(values, fine, 255) == pytest.approx(8 / 3)


def test_values_without_positions_all_count() -> None:
    assert mean_over_valid(torch.tensor([1.0, 3.0]), torch.full((2, 4, 4), 255), 255) == 2


def test_shapes_that_differ_are_named() -> None:
    check_same_shape(torch.zeros(2, 3), torch.zeros(2, 3))
    message = r'tensors of one shape but got \(2, 3\) and \(2, 4\)\. Tap layers of equal shape'
    with pytest.raises(TapError, match=message):
        check_same_shape(torch.zeros(2, 3), torch.zeros(2, 4))


def test_a_loss_without_arithmetic_cannot_be_used() -> None:
    with pytest.raises(NotImplementedError):
        DistillationLoss()(torch.zeros(1, 1), torch.zeros(1, 1))
