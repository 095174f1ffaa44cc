"""A map along an axis equals the product with its matrix, whatever form it is kept in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdplugin.weights.projection.axis_maps import AxisMap


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_head() -> AxisMap:
    rows, columns = torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    return AxisMap(4, 9, rows, columns, matrix=numbers(3, 2, 3))


MAPS = {
    'pick': AxisMap.pick([4, 0, 4], 6),
    'sum': AxisMap.pick([0, 0, 1, 2, 2], 3).transpose(),
    'weighed': AxisMap(3, 4, torch.tensor([2, 0, 2]), torch.tensor([1, 3, 0]), torch.tensor([0.5, -1.0, 2.0])),
    'dense': AxisMap.of(numbers(3, 5)),
    'by head': by_head(),
}


@pytest.mark.parametrize('name', MAPS)
@pytest.mark.parametrize('dim', [0, 1, 2])
def test_a_map_is_its_matrix_on_any_axis(name: str, dim: int) -> None:
    one = MAPS[name]
    shape = [2, 3, 4]
    shape[dim] = one.size
    tensor, matrix = numbers(*shape, seed=1), one.dense()
    assert matrix.shape == (one.to, one.size)
    assert torch.allclose(one(tensor, dim), torch.movedim(torch.movedim(tensor, dim, -1) @ matrix.T, -1, dim))


@pytest.mark.parametrize('name', MAPS)
def test_transpose_and_scale(name: str) -> None:
    one = MAPS[name]
    assert torch.equal(one.transpose().dense(), one.dense().T)
    assert torch.allclose(one.scaled(3).dense(), 3 * one.dense())
    assert one.scaled(1.0) is one


def test_matrices_of_known_maps() -> None:
    assert AxisMap.pick([1, 0], 3).dense().tolist() == [[0, 1, 0], [1, 0, 0]]
    assert MAPS['sum'].dense().tolist() == [[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]


def test_picks_copy_bits_of_any_type() -> None:
    counts = torch.tensor([2**62 + 1, 5, 7])
    assert torch.equal(AxisMap.pick([2, 0], 3)(counts, 0), torch.tensor([7, 2**62 + 1]))
    assert [name for name, one in MAPS.items() if one.copies] == ['pick']


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r'axis 1 of shape \(2, 7\) is not 6 wide'):
        MAPS['pick'](torch.zeros(2, 7), 1)
