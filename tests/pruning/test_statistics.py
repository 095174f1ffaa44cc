"""Sums over tokens and the fits that they give, beside numpy's least squares."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdplugin.pruning.statistics import LinearSums, NormSums, real_tokens

GENERATOR = torch.Generator()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR.manual_seed(seed), dtype=torch.float64)


X, Y = drawn(50, 4, seed=1) + 0.5, drawn(50, 3, seed=2) - 1


def test_padding_is_zero() -> None:
    assert real_tokens(torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])).tolist() == [[False, True]]


def test_sums_of_parts_are_those_of_the_whole() -> None:
    parts, whole = LinearSums.of(X[:20], Y[:20]) + LinearSums.of(X[20:], Y[20:]), LinearSums.of(X, Y)
    assert parts.count == 50
    for name in ('x', 'y', 'xx', 'yx'):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
    norms = NormSums.of(X[:20], X[:20] * 2) + NormSums.of(X[20:], X[20:] * 2)
    torch.testing.assert_close(norms.un, NormSums.of(X, X * 2).un)


def test_the_fit_is_that_of_numpy() -> None:
    weight, bias = LinearSums.of(X, Y).fit(torch.zeros(3, 4), ridge=1e-12)
    ones = np.concatenate([X.numpy(), np.ones((50, 1))], axis=1)
    expected = np.linalg.lstsq(ones, Y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(weight.numpy(), expected[:4].T, rtol=1e-6)
    np.testing.assert_allclose(bias.numpy(), expected[4], rtol=1e-6)
    rest = Y.numpy() - ones @ expected
    error = np.square(rest).sum() / np.square(Y.numpy() - Y.numpy().mean(0)).sum()
    assert abs(LinearSums.of(X, Y).error(weight, bias) - error) < 1e-9


def test_a_ridge_draws_to_the_given_weight() -> None:
    given = drawn(3, 4, seed=3)
    near, _ = LinearSums.of(X, Y).fit(given, ridge=1e9)
    torch.testing.assert_close(near, given, rtol=0, atol=1e-6)
    single = LinearSums.of(X[:1], Y[:1])  # determines nothing but the bias
    weight, bias = single.fit(given, ridge=1e-3)
    torch.testing.assert_close(weight, given)
    torch.testing.assert_close(X[:1] @ weight.T + bias, Y[:1])


def test_a_perfect_fit_has_no_error() -> None:
    weight, bias = drawn(3, 4, seed=4), drawn(3, seed=5)
    sums = LinearSums.of(X, X @ weight.T + bias)
    assert sums.error(weight, bias) < 1e-12
    assert abs(sums.error(torch.zeros(3, 4), sums.y / sums.count) - 1) < 1e-12


def test_scaled_sums() -> None:
    gain, shift = drawn(4, seed=6), drawn(4, seed=7)
    found, expected = LinearSums.of(X, Y).scaled(gain, shift), LinearSums.of(X * gain + shift, Y)
    for name in ('x', 'y', 'xx', 'yx'):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_gain_and_shift_of_a_norm() -> None:
    gain, shift = drawn(4, seed=8), drawn(4, seed=9)
    found = NormSums.of(X, X * gain + shift).fit(torch.zeros(4))
    torch.testing.assert_close(found, (gain, shift))
    still = X.clone()
    still[:, 1] = 2.0
    fitted, moved = NormSums.of(still, still * gain + shift).fit(torch.full((4,), 7.0))
    assert float(fitted[1]) == 7
    torch.testing.assert_close(moved[1], 2 * gain[1] + shift[1] - 14)
