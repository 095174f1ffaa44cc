"""The directions of most energy; and a LayerNorm that commutes with the basis."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.weights.projection import svd_bases
from kdplugin.weights.projection.svd_bases import balanced_pair, best_units, one_thread, orthonormal_basis


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('width', [1, 4, 9, 10])
@pytest.mark.parametrize('centred', [False, True])
def test_columns_are_orthonormal(width: int, centred: bool) -> None:
    rows = numbers(10, 30)
    basis = orthonormal_basis(rows @ rows.T, width, centred=centred)
    assert basis.shape == (10, width)
    assert torch.allclose(basis.T @ basis, torch.eye(width, dtype=torch.float64), atol=1e-12)


def test_the_span_is_that_of_the_leading_singular_vectors() -> None:
    rows = numbers(10, 30) * torch.logspace(0, -3, 10).double()[:, None]
    basis = orthonormal_basis(rows @ rows.T, 4)
    expected = torch.linalg.svd(rows).U[:, :4]
    assert torch.allclose(basis @ basis.T, expected @ expected.T, atol=1e-10)


@pytest.mark.parametrize('centred', [False, True])
def test_what_is_read_counts_for_more_than_what_is_not(centred: bool) -> None:
    """The error that readers see, ||R (1 - U U^T) W||, is below that of PCA; U stays orthonormal."""
    written, read = numbers(20, 60), numbers(30, 20, seed=1) * torch.logspace(0, -2, 20).double()
    with_readers = orthonormal_basis(written @ written.T, 8, centred=centred, read=read.T @ read)
    plain = orthonormal_basis(written @ written.T, 8, centred=centred)
    seen = [(read @ (written - basis @ basis.T @ written)).norm() for basis in (with_readers, plain)]
    assert seen[0] < 0.9 * seen[1]
    assert torch.allclose(with_readers.T @ with_readers, torch.eye(8).double(), atol=1e-12)
    if centred:
        assert torch.allclose(with_readers @ torch.ones(8).double() / 8**0.5, torch.ones(20).double() / 20**0.5)


@pytest.mark.parametrize('centred', [False, True])
def test_a_stream_that_fits_is_kept_whole_whatever_is_read(centred: bool) -> None:
    written, read = numbers(20, 5), numbers(3, 20, seed=1)
    written = written - written.mean(0)
    basis = orthonormal_basis(written @ written.T, 6, centred=centred, read=read.T @ read)
    assert torch.allclose(basis @ basis.T @ written, written, atol=1e-6)


def test_signs_are_fixed() -> None:
    basis = orthonormal_basis(numbers(6, 6) @ numbers(6, 6).T, 3)
    assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_randomised_decomposition_finds_the_same_span(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = numbers(60, 60) * torch.logspace(0, -4, 60).double()[:, None]
    exact = orthonormal_basis(rows @ rows.T, 10)
    monkeypatch.setattr(svd_bases, 'EXACT_UP_TO', 20)
    state = torch.random.get_rng_state()
    near = orthonormal_basis(rows @ rows.T, 10)
    assert torch.equal(near, orthonormal_basis(rows @ rows.T, 10))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.allclose(near @ near.T, exact @ exact.T, atol=1e-6)


@pytest.mark.parametrize(('wide', 'narrow'), [(12, 5), (5, 12), (7, 7)])
def test_layer_norm_commutes_with_a_centred_basis(wide: int, narrow: int) -> None:
    """LN_d(A x) = A LN_D(x) for A = sqrt(d / D) U^T, if the centred stream has at most d - 1 dimensions."""
    centred = numbers(wide, min(wide, narrow) - 1)
    centred = centred - centred.mean(0)
    stream = (centred @ numbers(centred.shape[1], 9, seed=1) + numbers(1, 9, seed=2)).T
    basis = orthonormal_basis(centred @ centred.T, narrow, centred=True) * (narrow / wide) ** 0.5
    normed = F.layer_norm(stream, (wide,), eps=0.1)
    assert torch.allclose(F.layer_norm(stream @ basis, (narrow,), eps=0.1), normed @ basis)
    if narrow < wide:
        plain = orthonormal_basis(centred @ centred.T, narrow) * (narrow / wide) ** 0.5
        assert not torch.allclose(F.layer_norm(stream @ plain, (narrow,), eps=0.1), normed @ plain, atol=0.05)


@pytest.mark.parametrize(('wide', 'narrow'), [(12, 5), (5, 12)])
def test_rms_norm_commutes_with_any_basis_of_the_stream(wide: int, narrow: int) -> None:
    span = numbers(wide, min(wide, narrow))
    stream = (span @ numbers(span.shape[1], 9, seed=1)).T
    basis = orthonormal_basis(span @ span.T, narrow) * (narrow / wide) ** 0.5
    projected = F.rms_norm(stream @ basis, (narrow,), eps=0.1)
    assert torch.allclose(projected, F.rms_norm(stream, (wide,), eps=0.1) @ basis)


def test_an_empty_stream_still_gets_a_basis() -> None:
    basis = orthonormal_basis(torch.zeros(6, 6).double(), 3, centred=True)
    assert torch.allclose(basis.T @ basis, torch.eye(3).double(), atol=1e-12)


def test_best_units_break_ties_by_order() -> None:
    assert best_units({'out': torch.tensor([1.0, 2, 2, 2])}, 2).tolist() == [1, 2]
    assert best_units({'out': torch.tensor([0.0, 0, 1])}, 2).tolist() == [0, 2]


def test_a_balanced_pair_is_the_best_low_rank_product() -> None:
    written, read = numbers(6, 20), numbers(15, 6, seed=1)
    down, up = balanced_pair(written @ written.T, read.T @ read, 3)
    left, values, right = torch.linalg.svd(read @ written)
    best = left[:, :3] * values[:3] @ right[:3]
    assert torch.allclose(down @ up, torch.eye(3).double(), atol=1e-8)
    assert torch.allclose(read @ up @ down @ written, best, atol=1e-8)


def test_a_balanced_pair_of_a_rank_below_its_own_stays_finite() -> None:
    written = numbers(6, 2)
    down, up = balanced_pair(written @ written.T, torch.eye(6).double(), 4)
    assert torch.allclose(down @ up, torch.eye(4).double(), atol=1e-4)
    assert torch.allclose(up @ down @ written, written, atol=1e-4)


def test_the_number_of_threads_comes_back() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
