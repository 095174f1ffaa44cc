"""Sums over tokens, in float64: what a linear layer reads and what it should put out.

Shapes: T token, K input, D output.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


def real_tokens(x: Tensor) -> Tensor:
    """Return which tokens [...] of an attention's input [..., C] are none of padding.

    Windows are padded with zeros behind the norm, where an image's own tokens are not zero; what padded tokens put
    out is cut off, so scores and fits should not see it.
    """
    return (x != 0).any(-1)


@dataclass(frozen=True)
class LinearSums:
    """Sums over tokens of inputs x and wanted outputs y, from which y = W x + b is fitted.

    Args:
        count: T.
        x: sum of x [K].
        y: sum of y [D].
        xx: sum of x x^T [K, K].
        yx: sum of y x^T [D, K].
        yy: sum of |y|^2.
    """

    count: int
    x: Tensor
    y: Tensor
    xx: Tensor
    yx: Tensor
    yy: float

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> LinearSums:
        """Return the sums over tokens x [T, K] and y [T, D]."""
        x, y = x.detach().double(), y.detach().double()
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, y.T @ x, float(y.square().sum()))

    def __add__(self, other: LinearSums) -> LinearSums:
        names = ('count', 'x', 'y', 'xx', 'yx', 'yy')
        return LinearSums(*(getattr(self, name) + getattr(other, name) for name in names))

    def scaled(self, gain: Tensor, shift: Tensor) -> LinearSums:
        """Return the sums for gain * x + shift in place of x, both [K]."""
        gain, shift = gain.to(self.x), shift.to(self.x)
        x = gain * self.x
        xx = gain[:, None] * self.xx * gain + torch.outer(x, shift) + torch.outer(shift, x)
        return replace(
            self,
            x=x + self.count * shift,
            xx=xx + self.count * torch.outer(shift, shift),
            yx=self.yx * gain + torch.outer(self.y, shift),
        )

    def fit(self, weight: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Return W [D, K] and b [D] of least mean |W x + b - y|^2 + r |W - weight|^2, in float64.

        r is ``ridge`` times the mean variance of an input: what the tokens do not determine stays as it is.

        Args:
            weight: [D, K], what W is drawn to.
            ridge: share.
        """
        weight = weight.to(self.x)
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx / self.count - torch.outer(mean_x, mean_x)
        yx = self.yx / self.count - torch.outer(mean_y, mean_x)
        strength = ridge * xx.diagonal().mean().clamp_min(1e-30)
        damped = xx + strength * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        fitted = weight + torch.linalg.solve(damped, (yx - weight @ xx).T).T
        return fitted, mean_y - fitted @ mean_x

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Return sum |W x + b - y|^2 / sum |y - mean(y)|^2: 0 is perfect, 1 as good as the mean."""
        weight, bias = weight.to(self.x), bias.to(self.x)
        square = ((weight @ self.xx) * weight).sum() - 2 * (weight * self.yx).sum() + self.yy
        square += 2 * bias @ (weight @ self.x - self.y) + self.count * bias @ bias
        spread = self.yy - float(self.y @ self.y) / self.count
        return max(float(square), 0.0) / max(spread, 1e-30)


@dataclass(frozen=True)
class NormSums:
    """Sums over tokens of normalised kept neurons u and of what the whole ``ffn_ln`` put out for them, n; all [K].

    u = (h - m) / sqrt(v + eps), with mean and variance of the kept neurons alone.
    """

    count: int
    u: Tensor
    n: Tensor
    uu: Tensor
    un: Tensor

    @classmethod
    def of(cls, u: Tensor, n: Tensor) -> NormSums:
        """Return the sums over tokens u and n, both [T, K]."""
        u, n = u.detach().double(), n.detach().double()
        return cls(len(u), u.sum(0), n.sum(0), u.square().sum(0), (u * n).sum(0))

    def __add__(self, other: NormSums) -> NormSums:
        names = ('count', 'u', 'n', 'uu', 'un')
        return NormSums(*(getattr(self, name) + getattr(other, name) for name in names))

    def fit(self, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return gain and shift [K] of least mean (gain * u + shift - n)^2; neurons that never move keep theirs."""
        u, n = self.u / self.count, self.n / self.count
        variance = self.uu / self.count - u.square()
        covariance = self.un / self.count - u * n
        moves = variance > 1e-12
        fitted = torch.where(moves, covariance / variance.where(moves, torch.ones_like(variance)), gain.to(u))
        return fitted, n - fitted * u
