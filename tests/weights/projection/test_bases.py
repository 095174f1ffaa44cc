"""A B = I where an axis narrows, B A = I where it widens, and what each method keeps exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup
from kdplugin.weights.projection.bases import Basis, groups_of, make_basis


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def basis(wide: int, narrow: int, method: str, kind: str = 'hidden', **statistics: Tensor) -> Basis:
    return make_basis(AxisGroup(kind, wide, narrow, method, ()), statistics)


def statistics_for(kind: str, wide: int) -> dict[str, Tensor]:
    rows = numbers(wide, wide)
    return {'gram': rows @ rows.T} if kind == 'residual' else {'out': rows[0] ** 2, 'in': rows[1] ** 2}


@pytest.mark.parametrize('kind', ['hidden', 'residual'])
@pytest.mark.parametrize('method', ['truncate', 'average', 'svd'])
@pytest.mark.parametrize('narrow', [1, 3, 6, 7])
def test_narrower_is_a_b_identity(kind: str, method: str, narrow: int) -> None:
    one = basis(7, narrow, method, kind, **statistics_for(kind, 7))
    assert torch.allclose(one.out.dense() @ one.inward.dense(), torch.eye(narrow, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize('method', ['repeat', 'zero', 'svd'])
@pytest.mark.parametrize('kind', ['hidden', 'residual'])
@pytest.mark.parametrize('wide', [8, 10, 15])
def test_wider_is_b_a_identity(kind: str, method: str, wide: int) -> None:
    one = basis(5, wide, method, kind)
    assert torch.allclose(one.inward.dense() @ one.out.dense(), torch.eye(5, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize('side', ['out', 'in', 'gain'])
@pytest.mark.parametrize('method', ['truncate', 'average', 'svd', 'repeat', 'zero'])
def test_up_is_the_pseudo_inverse_of_down(side: str, method: str) -> None:
    wide, narrow = (7, 3) if method in ('truncate', 'average', 'svd') else (3, 7)
    one = basis(wide, narrow, method, 'residual', **statistics_for('residual', wide))
    expected = torch.linalg.pinv(one.down(side).dense())
    assert torch.allclose(one.up(side).dense(), expected, atol=1e-10)


@pytest.mark.parametrize('side', ['out', 'in'])
@pytest.mark.parametrize(('method', 'kind'), [('truncate', 'hidden'), ('svd', 'residual'), ('svd', 'hidden')])
def test_right_angles_keep_what_the_narrow_axis_measures(method: str, kind: str, side: str) -> None:
    one, values = basis(7, 3, method, kind, **statistics_for(kind, 7)), numbers(7, 5, seed=1)
    narrow = one.down(side)(values, 0)
    kept = one.kept(side)
    assert kept is not None
    assert kept * float(narrow.square().sum()) == pytest.approx(float(one.up(side)(narrow, 0).square().sum()))


def test_slanted_projections_have_no_such_factor() -> None:
    assert basis(7, 3, 'average').kept('out') is None, 'groups differ in size'
    assert basis(3, 7, 'svd', 'residual').kept('out') is None, 'wider'
    assert basis(7, 3, 'truncate').kept('gain') is None


def test_truncate_keeps_the_first_units() -> None:
    assert basis(5, 2, 'truncate').out.dense().tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]


def test_groups_of_neighbours_differ_by_one_at_most() -> None:
    assert groups_of(7, 3).tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert groups_of(6, 3).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize('narrow', [2, 3, 4])
def test_average_passes_a_signal_that_is_constant_within_groups(narrow: int) -> None:
    """Two layers with ReLU between, whose hidden units are equal within each group, compute the same when averaged."""
    one = basis(8, narrow, 'average')
    first, second, signal = numbers(narrow, 5)[groups_of(8, narrow)], numbers(4, 8, seed=1), numbers(5, seed=2)
    before = second @ F.relu(first @ signal)
    after = one.down('in')(second, 1) @ F.relu(one.down('out')(first, 0) @ signal)
    assert torch.allclose(before, after)


def test_average_without_the_compensating_scale_would_shrink_the_signal() -> None:
    assert basis(8, 4, 'average').down('in').dense().sum(1).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize('method', ['truncate', 'average', 'svd', 'repeat', 'zero'])
def test_a_gain_becomes_the_nearest_diagonal(method: str) -> None:
    wide, narrow = (6, 3) if method in ('truncate', 'average', 'svd') else (3, 6)
    one = basis(wide, narrow, method, 'residual', **statistics_for('residual', wide))
    gain = numbers(wide) ** 2
    full = one.out.dense() @ torch.diag(gain) @ one.inward.dense()
    projected = one.down('gain')(gain, 0)
    if narrow < wide:
        assert torch.allclose(projected, full.diagonal())
    assert (projected >= 0).all()
    assert torch.allclose(one.down('gain')(torch.ones(wide).double(), 0)[:wide], torch.ones(min(wide, narrow)).double())


def test_a_repeated_gain_is_copied() -> None:
    assert basis(3, 7, 'repeat').down('gain')(torch.tensor([1.0, 2, 3]), 0).tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_hidden_units_of_most_written_times_read_energy_are_kept_in_order() -> None:
    one = basis(4, 2, 'svd', out=torch.tensor([1.0, 8, 1, 4]), **{'in': torch.tensor([9.0, 1, 1, 4])})
    assert one.out.columns.tolist() == [0, 3]


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'method': 'pca'}, r'Expected a method of truncate, average, svd for 8 to 4 but got \'pca\'\. Correct the'),
        ({'method': 'repeat'}, r'Expected a method of truncate, average, svd for 8 to 4 but got \'repeat\''),
        ({'method': 'average', 'target_width': 9}, r'Expected a method of svd, repeat, zero for 8 to 9 but got'),
        ({'method': 'svd'}, r'Expected tensors to measure the hidden basis of 8 to 4 on but got none\. Give the group'),
    ],
)
def test_groups_that_cannot_be(changed: dict[str, Any], message: str) -> None:
    settings = {'kind': 'hidden', 'source_width': 8, 'target_width': 4, 'members': (), **changed}
    with pytest.raises(CheckpointError, match=message):
        make_basis(AxisGroup(**settings))


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"Expected a side of in, gain, out but got 'q'\. Correct the plan"):
        basis(4, 2, 'truncate').down('q')
