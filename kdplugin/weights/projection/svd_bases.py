"""Bases chosen by what the weights, or activations, say is important: method 'svd'.

Residual streams, which are linear, get an orthonormal basis U [D, d] of the directions with the most energy. Hidden
units sit behind an elementwise non-linearity, which does not commute with a rotation: there 'svd' means to choose the
units with the most energy. Within a head, values (and q, k where nothing sits between them) get the best low-rank
form of the product of the two matrices around them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

EXACT_UP_TO = 2048
"""Above this width a randomised decomposition is several times faster than eigh."""


def orthonormal_basis(gram: Tensor, width: int, *, centred: bool = False, read: Tensor | None = None) -> Tensor:
    """Return U [D, d] with orthonormal columns that spans the directions that matter most.

    Of what is written, P = L L^T, the directions of most energy (PCA); with ``read``, Q, those that are also read most:
    the span of L V, V the leading eigenvectors of L^T Q L. That is the best subspace for E ||R x||^2 with Q = R^T R, as
    in balanced truncation. A hundredth of Q is the identity, so that a stream of d dimensions is kept whole.

    RMSNorm: ||U^T x|| = ||x|| for any x in the span, so sqrt(d / D) U^T x has the mean square of x.

    LayerNorm subtracts the mean, which is a projection along the vector of all ones. ``centred`` chooses
    U = V Q^T + 1_D 1_d^T / sqrt(D d), with V [D, d - 1] the best directions orthogonal to 1_D, and Q [d, d - 1] an
    orthonormal basis of what is orthogonal to 1_d. Then U 1_d / sqrt(d) = 1_D / sqrt(D), so subtracting the mean
    commutes with U^T, and if the centred stream lies in the span of V, LayerNorm of sqrt(d / D) U^T x is that times
    LayerNorm of x. One of the d dimensions is thus spent on the mean, as LayerNorm always spends one. SliceGPT
    (Ashkboos et al., ICLR 2024) turns LayerNorm into RMSNorm instead, which a student of a given architecture cannot.

    A wider target, d > D, gets an isometry the same way: U^T U = U U^T restricted to the stream, nothing is lost.

    Args:
        gram: second moments [D, D] of what is written to the stream.
        width: d.
        read: sum of R^T R [D, D] over the layers R that read it.

    Returns:
        U, and for d > D the matrix [D, d] with U U^T = I.
    """
    size = len(gram)
    if width > size:
        return _isometry(size, width, centred)
    gram = (gram + gram.T) / 2
    if not centred:
        return _top(gram, width) if read is None else _orthonormal(_read_most(gram, read, width))
    ones = torch.full((size, 1), size**-0.5, dtype=gram.dtype)
    gram = gram - ones @ (ones.T @ gram)
    gram = gram - (gram @ ones) @ ones.T
    if read is None:
        inner = _top(gram - ones @ ones.T * gram.trace().clamp_min(1e-30), max(width - 1, 1))[:, : width - 1]
    else:
        inner = _orthonormal(torch.cat([ones, _read_most(gram, read, max(width - 1, 1))], 1))[:, 1:width]
    student_ones = torch.full((width, 1), width**-0.5, dtype=gram.dtype)
    return inner @ _without_ones(width, gram.dtype).T + ones @ student_ones.T


def _read_most(gram: Tensor, read: Tensor, width: int) -> Tensor:
    """Return L V [D, d], see ``orthonormal_basis``, with columns of length one."""
    identity = torch.eye(len(gram), dtype=gram.dtype) / len(gram)
    weights = 0.99 * read / read.trace().clamp_min(1e-30) + 0.01 * identity
    root = _root(gram)
    leading = root @ _top(root.T @ weights @ root, width)
    return leading / torch.linalg.vector_norm(leading, dim=0).clamp_min(1e-30)


def _orthonormal(columns: Tensor) -> Tensor:
    return torch.linalg.qr(columns).Q


def _isometry(size: int, width: int, centred: bool) -> Tensor:
    if not centred:
        return torch.eye(size, width, dtype=torch.float64)
    ones, student_ones = (torch.full((n, 1), n**-0.5, dtype=torch.float64) for n in (size, width))
    inner, student_inner = _without_ones(size, torch.float64), _without_ones(width, torch.float64)
    return inner @ student_inner[:, : size - 1].T + ones @ student_ones.T


def _without_ones(size: int, dtype: torch.dtype) -> Tensor:
    """Return an orthonormal basis [n, n - 1] of what is orthogonal to all ones: a Householder reflection's columns."""
    reflection = torch.full((size,), -(size**-0.5), dtype=dtype)
    reflection[0] += 1
    norm = reflection.square().sum()
    identity = torch.eye(size, dtype=dtype)
    return (identity if norm == 0 else identity - 2 / norm * torch.outer(reflection, reflection))[:, 1:]


def _top(gram: Tensor, width: int) -> Tensor:
    """Return the eigenvectors of the largest eigenvalues, largest first, each with its largest entry positive."""
    if len(gram) <= EXACT_UP_TO or 2 * width > len(gram):
        vectors = torch.linalg.eigh(gram).eigenvectors[:, -width:].flip(1)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            vectors = torch.svd_lowrank(gram, q=min(width + 32, len(gram)), niter=2)[0][:, :width]
    largest = vectors.abs().argmax(0, keepdim=True)
    return vectors * vectors.gather(0, largest).sign()


def best_units(energies: Mapping[str, Tensor], count: int) -> Tensor:
    """Return the hidden units with the most energy, in their order: written energy times read energy.

    Args:
        energies: by kind: 'out' and 'in', 'gain' of norms, and 'norm' of BatchNorm, which takes the place of 'out'.
    """
    parts = [value for kind, value in energies.items() if kind != 'out' or 'norm' not in energies]
    scores = torch.stack(parts).log().sum(0) if parts else torch.zeros(0)
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def balanced_pair(written: Tensor, read: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A [T, S] and B [S, T] with A B = I and R B A W nearest to R W, for W W^T and R^T R of shape [S, S].

    The best approximation of rank T of the product of two matrices, from their Gram matrices alone: balanced
    truncation (Moore, 1981). Within an attention head the product is W_o W_v, or W_k^T W_q.
    """
    with one_thread():
        roots = [_root(gram.double()) for gram in (read, written)]
        left, values, right = torch.linalg.svd(roots[0].T @ roots[1])
        scale = values[:rank].rsqrt()
        return scale[:, None] * (left[:, :rank].T @ roots[0].T), roots[1] @ right[:rank].T * scale


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, which is ten times faster for matrices of a head's width on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _root(gram: Tensor) -> Tensor:
    """Return the lower triangular L with L L^T = G, where directions without energy get a trace of it."""
    floor = gram.diagonal().mean().clamp_min(1e-30) * 1e-12
    identity = torch.eye(len(gram), dtype=gram.dtype)
    gram = (gram + gram.T) / 2
    for power in range(0, 8, 2):  # rounding may leave eigenvalues just below zero
        root, failed = torch.linalg.cholesky_ex(gram + floor * 10**power * identity)
        if not failed:
            return root
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp_min(float(floor)).sqrt()
