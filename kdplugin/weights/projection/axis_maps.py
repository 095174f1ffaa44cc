"""Linear maps along one axis of a tensor: rows picked, summed and weighed, or a matrix for each head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class AxisMap:
    """A map from an axis of width ``size`` to one of width ``to``.

    out[rows[i]] += values[i] * in[columns[i]], where the rows are single ones, or, with ``matrix`` [n, T, S] in place
    of ``values`` [n], heads of T and of S; a dense matrix is the case of one head. Without either, bits are copied.

    Example:
        >>> pick = AxisMap.pick([2, 0], 3)
        >>> pick(torch.tensor([[1., 2., 3.]]), dim=1), pick.transpose()(torch.tensor([5., 6.]), dim=0)
        (tensor([[3., 1.]]), tensor([6., 0., 5.]))
    """

    to: int
    size: int
    rows: Tensor
    columns: Tensor
    values: Tensor | None = None
    matrix: Tensor | None = None

    @classmethod
    def pick(cls, columns: Sequence[int] | Tensor, size: int) -> AxisMap:
        """Return the map whose output rows are these input rows."""
        picked = torch.as_tensor(columns, dtype=torch.long)
        return cls(len(picked), size, torch.arange(len(picked)), picked)

    @classmethod
    def of(cls, matrix: Tensor) -> AxisMap:
        """Return the map that multiplies by a matrix [to, size]."""
        to, size = matrix.shape
        return cls(to, size, torch.tensor([0]), torch.tensor([0]), matrix=matrix[None])

    @property
    def copies(self) -> bool:
        """Whether values pass unchanged, so that any type of number can go through."""
        return self.matrix is None and self.values is None and self._in_order

    @property
    def _height(self) -> int:
        return 1 if self.matrix is None else self.matrix.shape[1]

    @property
    def _in_order(self) -> bool:
        return torch.equal(self.rows, torch.arange(self.to // self._height))

    def transpose(self) -> AxisMap:
        """Return the map of the transposed matrix."""
        matrix = None if self.matrix is None else self.matrix.transpose(1, 2)
        return AxisMap(self.size, self.to, self.columns, self.rows, self.values, matrix)

    def scaled(self, factor: float) -> AxisMap:
        """Return the map times a number."""
        if factor == 1.0:
            return self
        if self.matrix is not None:
            return replace(self, matrix=self.matrix * factor)
        values = torch.ones(self.rows.shape, dtype=torch.float64) if self.values is None else self.values
        return replace(self, values=values * factor)

    def dense(self) -> Tensor:
        """Return the matrix [to, size]."""
        return self(torch.eye(self.size, dtype=torch.float64), 0)

    def __call__(self, tensor: Tensor, dim: int) -> Tensor:
        """Return the tensor with axis ``dim`` mapped.

        Raises:
            ValueError: the axis has another width.
        """
        if tensor.shape[dim] != self.size:
            raise ValueError(f'axis {dim} of shape {tuple(tensor.shape)} is not {self.size} wide')
        rows, columns = self.rows.to(tensor.device), self.columns.to(tensor.device)
        if self.matrix is None:
            picked = tensor.index_select(dim, columns)
            if self.values is not None:
                picked = picked * self.values.to(tensor).reshape([-1 if i == dim else 1 for i in range(tensor.ndim)])
            return picked if self._in_order else _gathered(picked, dim, rows, self.to)
        return self._by_head(tensor, dim, rows, columns, self.matrix.to(tensor))

    def _by_head(self, tensor: Tensor, dim: int, rows: Tensor, columns: Tensor, matrix: Tensor) -> Tensor:
        """Multiply from the left where the axis is the first, else from the right: neither copies the tensor first."""
        first = dim == 0
        moved = tensor if first else tensor.movedim(dim, -1)
        size, rest = matrix.shape[2], tensor.numel() // self.size
        heads = moved.reshape(-1, size, rest) if first else moved.reshape(rest, -1, size).transpose(0, 1)
        if not torch.equal(columns, torch.arange(len(heads), device=columns.device)):
            heads = heads.index_select(0, columns)
        heads = torch.bmm(matrix, heads) if first else torch.bmm(heads, matrix.transpose(1, 2))
        heads = heads if self._in_order else _gathered(heads, 0, rows, self.to // self._height)
        if first:
            return heads.reshape(self.to, *moved.shape[1:])
        return heads.transpose(0, 1).reshape(*moved.shape[:-1], self.to).movedim(-1, dim)


def _gathered(picked: Tensor, dim: int, rows: Tensor, count: int) -> Tensor:
    shape = list(picked.shape)
    shape[dim] = count
    empty = picked.new_zeros(shape)
    single = len(rows.unique()) == len(rows)  # copying is much faster than adding
    return empty.index_copy_(dim, rows, picked) if single else empty.index_add_(dim, rows, picked)
