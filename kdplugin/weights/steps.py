"""What each step of a plan does to a tensor, all but 'project', which ``kdplugin.weights.apply`` does with its bases.

Every operation also follows shapes on the meta device, so a plan can be checked before a value is read. Arithmetic
is left out there: torch would first import its compiler, which takes seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import Step
from kdplugin.weights.reading.tensor_source import TensorSource

REARRANGE = {'narrow', 'permute', 'reshape', 'index', 'fill'}
"""Operations that any type of number can go through; the others compute and need floating numbers."""


def run_step(tensor: Tensor, step: Step, source: TensorSource) -> Tensor:
    """Return what one step makes of a tensor.

    narrow(dim, start, stop): rows start to stop of one axis. permute(dims) and reshape(shape): as in torch.
    index(dim, indices): rows in another order, or some of them. scale(factor): times a number.
    collapse_time(how): a Conv3d weight [O, I, T, H, W] to a Conv2d weight, by the 'middle' frame T // 2, the 'first',
    the 'mean' or the 'sum'; on a clip that repeats one frame the sum computes what the Conv3d does.
    resize_positions(prefix, grid, target_prefix, target_grid): a table [..., prefix + H * W, C] to another grid,
    bicubic, smoothed first where it shrinks; extra tokens are kept, the last ones dropped, or zeros added.
    expand(dim, size, how): more rows: 'zero', 'repeat' (r -> r mod the old size), or 'share', which divides repeated
    rows by their number, for the reading side of a repeated axis (Net2Net, Chen et al., ICLR 2016).
    centre(dim): less the mean along one axis.
    multiply(dim, source): times a vector of the source along one axis, such as the gain of a norm.
    divide(dim, source): by such a vector g, as g / (g^2 + 1e-4 mean(g^2)), which small values do not blow up.
    normalise(matrix): by the root mean square length of the rows of a matrix of the source, as a norm of what that
    matrix makes of white input would do.
    add_product(matrix, vector, rows): plus the product of these two of the source, such as the bias of a norm through
    the layer that reads it; rows [start, stop] of the matrix, or null for all.
    fill(shape, value): one number everywhere, where other tensors carry the source's values.

    Args:
        source: where 'multiply' and 'add_product' find their tensors.

    Raises:
        CheckpointError: the step does not fit the tensor.
    """
    if step.op not in REARRANGE and not tensor.is_floating_point():
        raise CheckpointError(f'Expected floating numbers for {step} but got {tensor.dtype}. Correct the plan.')
    try:
        return _run(tensor, step, source)
    except CheckpointError:
        raise
    except (RuntimeError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
        reason = str(error).split('\n')[0][:200]
        raise CheckpointError(
            f'Expected a tensor that {step} can work on but got shape {tuple(tensor.shape)} ({reason}). '
            'Correct the plan, or make it again for this source.'
        ) from None


def _run(tensor: Tensor, step: Step, source: TensorSource) -> Tensor:
    args = step.args
    if step.op == 'narrow':
        return tensor.narrow(args['dim'], args['start'], args['stop'] - args['start'])
    if step.op == 'permute':
        return tensor.permute(args['dims'])
    if step.op == 'reshape':
        return tensor.reshape(args['shape'])
    if step.op == 'index':
        return tensor.index_select(args['dim'], torch.tensor(args['indices'], device=tensor.device))
    if step.op == 'fill':
        return torch.full(args['shape'], args['value'], dtype=tensor.dtype, device=tensor.device)
    tensor = computable(tensor)
    if step.op == 'scale':
        return tensor if tensor.is_meta else tensor * args['factor']
    if step.op == 'collapse_time':
        return collapse_time(tensor, args['how'])
    if step.op == 'resize_positions':
        return resize_positions(tensor, args['prefix'], args['grid'], args['target_prefix'], args['target_grid'])
    if step.op == 'expand':
        return expand(tensor, args['dim'], args['size'], args['how'])
    if step.op == 'centre':
        return tensor if tensor.is_meta else tensor - tensor.mean(args['dim'], keepdim=True)
    if step.op == 'multiply':
        return multiply(tensor, source[args['source']], args['dim'])
    if step.op == 'divide':
        gain = computable(source[args['source']])
        inverse = gain if gain.is_meta else gain / (gain.square() + 1e-4 * gain.square().mean())
        return multiply(tensor, inverse, args['dim'])
    if step.op == 'normalise':
        return normalise(tensor, source[args['matrix']])
    if step.op == 'add_product':
        return add_product(tensor, source[args['matrix']], source[args['vector']], args['rows'])
    raise CheckpointError(f'Expected a step that prepares a tensor but got {step}. Put it after the others.')


def computable(tensor: Tensor) -> Tensor:
    """Return the tensor in a type that sums keep their digits in: float32, or float64 as it is."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def multiply(tensor: Tensor, vector: Tensor, dim: int) -> Tensor:
    """Return the tensor times a vector along one axis."""
    if vector.numel() != tensor.shape[dim]:
        raise ValueError(f'the vector has {vector.numel()} values for axis {dim}')
    shape = [-1 if axis == dim else 1 for axis in range(tensor.ndim)]
    return tensor if tensor.is_meta else tensor * computable(vector).reshape(shape)


def normalise(tensor: Tensor, matrix: Tensor) -> Tensor:
    """Return the tensor divided by the root mean square length of a matrix's rows."""
    if tensor.is_meta:
        return tensor
    return tensor * (len(matrix) ** 0.5 / torch.linalg.vector_norm(computable(matrix)).clamp_min(1e-30))


def add_product(tensor: Tensor, matrix: Tensor, vector: Tensor, rows: list[int] | None = None) -> Tensor:
    """Return the tensor plus the product of a matrix [O, ...], or rows of it, and a vector."""
    flat = matrix.flatten(1) if rows is None else matrix.flatten(1)[rows[0] : rows[1]]
    if flat.shape != (tensor.numel(), vector.numel()):
        raise ValueError(f'the product is one of {tuple(matrix.shape)} and {tuple(vector.shape)}')
    if tensor.is_meta:
        return tensor
    return tensor + (computable(flat) @ computable(vector).reshape(-1)).reshape(tensor.shape)


def collapse_time(weight: Tensor, how: str) -> Tensor:
    """Return a Conv2d weight [O, I, H, W] of a Conv3d weight [O, I, T, H, W]; see ``run_step``."""
    if weight.ndim != 5:
        raise ValueError('it is no Conv3d weight of 5 axes')
    if how not in ('middle', 'sum', 'mean', 'first'):
        raise ValueError(f'{how!r} is not middle, sum, mean or first')
    if how in ('sum', 'mean') and not weight.is_meta:
        return weight.sum(2) if how == 'sum' else weight.mean(2)
    return weight[:, :, 0 if how == 'first' else weight.shape[2] // 2]


def resize_positions(table: Tensor, prefix: int, grid: list[int], target_prefix: int, target_grid: list[int]) -> Tensor:
    """Return a position table [..., P + H * W, C] for another grid and number of extra tokens; see ``run_step``."""
    flat = table.reshape(-1, *table.shape[-2:])
    if flat.shape[1] != prefix + grid[0] * grid[1]:
        raise ValueError(f'it has not {prefix} + {grid[0]} x {grid[1]} positions')
    if table.is_meta:
        return table.new_empty(*table.shape[:-2], target_prefix + target_grid[0] * target_grid[1], table.shape[-1])
    extra, image = flat[:, :prefix], flat[:, prefix:]
    missing = flat.new_zeros(len(flat), max(target_prefix - prefix, 0), flat.shape[2])
    extra = torch.cat([extra, missing], 1)[:, :target_prefix]
    if list(grid) != list(target_grid):
        shrinks = target_grid[0] < grid[0] or target_grid[1] < grid[1]
        planes = image.transpose(1, 2).reshape(len(flat), -1, *grid)
        planes = F.interpolate(planes, tuple(target_grid), mode='bicubic', align_corners=False, antialias=shrinks)
        image = planes.flatten(2).transpose(1, 2)
    return torch.cat([extra, image], 1).reshape(*table.shape[:-2], -1, table.shape[-1])


def expand(tensor: Tensor, dim: int, size: int, how: str) -> Tensor:
    """Return the tensor with an axis of more rows; see ``run_step``."""
    old = tensor.shape[dim]
    if size < old:
        raise ValueError(f'axis {dim} would shrink to {size}')
    if how == 'zero':
        wide = tensor.new_zeros([size if axis == dim else length for axis, length in enumerate(tensor.shape)])
        wide.narrow(dim, 0, old).copy_(tensor)
        return wide
    if how not in ('repeat', 'share'):
        raise ValueError(f'{how!r} is not zero, repeat or share')
    rows = torch.arange(size) % old
    wide = tensor.index_select(dim, rows.to(tensor.device))
    return wide if how == 'repeat' else multiply(wide, 1 / torch.bincount(rows)[rows], dim)
