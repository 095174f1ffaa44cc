"""Each step does what its documentation says; Conv3d on a still clip is the Conv2d of the summed kernel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import OPERATIONS, Step
from kdplugin.weights.reading.tensor_source import MemorySource
from kdplugin.weights.steps import run_step

EMPTY = MemorySource({})


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(tensor: Tensor, op: str, where: MemorySource = EMPTY, **args: Any) -> Tensor:
    return run_step(tensor, Step(op, args), where)


def test_rearrangements_move_bits_of_any_type() -> None:
    counts = torch.arange(24).reshape(4, 6)
    assert torch.equal(run(counts, 'narrow', dim=0, start=1, stop=3), counts[1:3])
    assert torch.equal(run(counts, 'permute', dims=[1, 0]), counts.T)
    assert torch.equal(run(counts, 'reshape', shape=[2, 12]), counts.view(2, 12))
    assert torch.equal(run(counts, 'index', dim=1, indices=[5, 0, 5]), counts[:, [5, 0, 5]])
    assert torch.equal(run(counts, 'fill', shape=[3], value=7), torch.tensor([7, 7, 7]))


def test_half_precision_computes_in_single_and_double_stays_double() -> None:
    small = torch.full((2,), 1e-4, dtype=torch.float16)
    assert run(small, 'scale', factor=1e-4).dtype == torch.float32
    assert run(small.double(), 'scale', factor=0.5).dtype == torch.float64


def test_the_sum_over_time_is_the_conv3d_of_a_still_clip() -> None:
    """Without padding in time every frame of a still clip sees the sum of the kernel."""
    kernel, image = numbers(5, 3, 4, 3, 3), numbers(2, 3, 8, 8, seed=1)
    clip = image[:, :, None].expand(-1, -1, 4, -1, -1)
    over_time = F.conv3d(clip, kernel, padding=(0, 1, 1))[:, :, 0]
    assert torch.allclose(over_time, F.conv2d(image, run(kernel, 'collapse_time', how='sum'), padding=1), atol=1e-5)
    for how in ('middle', 'mean', 'first'):
        flat = F.conv2d(image, run(kernel, 'collapse_time', how=how), padding=1)
        assert not torch.allclose(over_time, flat, atol=0.1)


def test_one_frame_of_time() -> None:
    kernel = numbers(5, 3, 4, 3, 3)
    assert torch.equal(run(kernel, 'collapse_time', how='middle'), kernel[:, :, 2])
    assert torch.equal(run(kernel, 'collapse_time', how='first'), kernel[:, :, 0])
    assert torch.allclose(run(kernel, 'collapse_time', how='mean') * 4, run(kernel, 'collapse_time', how='sum'))


def positions(table: Tensor, **changed: Any) -> Tensor:
    settings: dict[str, Any] = {'prefix': 1, 'grid': [4, 4], 'target_prefix': 1, 'target_grid': [4, 4]}
    return run(table, 'resize_positions', **{**settings, **changed})


def test_positions_are_resized_apart_from_extra_tokens() -> None:
    table = numbers(1, 17, 6)
    assert torch.equal(positions(table), table)
    larger = positions(table, target_grid=[8, 6])
    image = table[:, 1:].transpose(1, 2).reshape(1, 6, 4, 4)
    expected = F.interpolate(image, (8, 6), mode='bicubic').flatten(2).transpose(1, 2)
    assert torch.equal(larger[:, :1], table[:, :1])
    assert torch.allclose(larger[:, 1:], expected, atol=1e-6)
    assert torch.equal(positions(table[0], target_grid=[8, 6]), larger[0])
    assert torch.equal(positions(table, target_prefix=0), table[:, 1:])
    with_one_more = torch.cat([table[:, :1], torch.zeros(1, 1, 6), table[:, 1:]], 1)
    assert torch.equal(positions(table, target_prefix=2), with_one_more)


def test_a_constant_table_stays_constant_where_it_shrinks() -> None:
    assert torch.allclose(positions(torch.full((1, 17, 3), 2.5), target_grid=[2, 3]), torch.tensor(2.5))


def test_expansion_keeps_what_a_reader_computes() -> None:
    written, read = numbers(3, 4), numbers(5, 3, seed=1)
    for how_out, how_in in (('zero', 'zero'), ('repeat', 'share')):
        wide = run(written, 'expand', dim=0, size=8, how=how_out)
        reader = run(read, 'expand', dim=1, size=8, how=how_in)
        assert wide.shape == (8, 4)
        assert torch.allclose(reader @ wide, read @ written, atol=1e-6)


def test_centring_takes_the_mean_that_layer_norm_would() -> None:
    weight, signal = numbers(4, 3), numbers(3, 5, seed=1)
    centred = run(weight, 'centre', dim=0) @ signal
    assert torch.allclose(centred, weight @ signal - (weight @ signal).mean(0), atol=1e-6)


def test_normalised_rows_give_white_input_a_mean_square_of_one() -> None:
    """What RMSNorm over the outputs of a layer does on average, as a constant."""
    weight, signal = 7 * numbers(64, 32), numbers(32, 5000, seed=1)
    plain = run(weight, 'normalise', MemorySource({'w': weight}), matrix='w')
    assert (plain @ signal).square().mean() == pytest.approx(1, abs=0.05)


def test_division_by_a_gain_undoes_it_but_where_it_is_small() -> None:
    source = MemorySource({'gain': torch.tensor([2.0, -1.0, 0.0, 1e-6])})
    divided = run(torch.ones(2, 4), 'divide', source, dim=1, source='gain')
    assert torch.allclose(divided[:, :2], torch.tensor([0.5, -1.0]), atol=2e-4)
    assert divided[:, 2:].abs().max() < 0.01


def test_gain_and_bias_of_a_norm_fold_into_its_reader() -> None:
    gain, bias, weight, own, signal = (
        numbers(4),
        numbers(4, seed=1),
        numbers(3, 4, seed=2),
        numbers(3, seed=3),
        numbers(4),
    )
    source = MemorySource({'gain': gain, 'bias': bias, 'weight': weight})
    folded = run(weight, 'multiply', source, dim=1, source='gain')
    shifted = run(own, 'add_product', source, matrix='weight', vector='bias', rows=None)
    assert torch.allclose(folded @ signal + shifted, weight @ (signal * gain + bias) + own, atol=1e-6)
    last = run(own[1:], 'add_product', source, matrix='weight', vector='bias', rows=[1, 3])
    assert torch.allclose(last, shifted[1:])


@pytest.mark.parametrize(
    ('shape', 'op', 'args'),
    [
        ((4, 6), 'narrow', {'dim': 0, 'start': 2, 'stop': 9}),
        ((4, 6), 'permute', {'dims': [0, 1, 2]}),
        ((4, 6), 'reshape', {'shape': [5, 5]}),
        ((4, 6), 'index', {'dim': 0, 'indices': [4]}),
        ((4, 6), 'collapse_time', {'how': 'sum'}),
        ((1, 2, 3, 4, 5), 'collapse_time', {'how': 'last'}),
        ((4, 6), 'expand', {'dim': 0, 'size': 3, 'how': 'zero'}),
        ((4, 6), 'expand', {'dim': 0, 'size': 8, 'how': 'mirror'}),
        ((4, 6), 'resize_positions', {'prefix': 1, 'grid': [2, 2], 'target_prefix': 0, 'target_grid': [3, 3]}),
        ((4,), 'multiply', {'dim': 0, 'source': 'gain'}),
        ((4,), 'add_product', {'matrix': 'weight', 'vector': 'gain', 'rows': [0, 2]}),
        ((4, 6), 'project', {'dim': 0, 'group': 'stream', 'side': 'out'}),
    ],
)
def test_a_step_that_does_not_fit_is_named_with_the_shape(
    shape: tuple[int, ...], op: str, args: dict[str, Any]
) -> None:
    source = MemorySource({'gain': numbers(3), 'weight': numbers(4, 3)})
    with pytest.raises(CheckpointError, match=rf'Expected a .* {op}\('):
        run(numbers(*shape), op, source, **args)


def test_integers_are_not_computed_with() -> None:
    with pytest.raises(CheckpointError, match=r'Expected floating numbers for scale\(2\) but got torch\.int64'):
        run(torch.arange(3), 'scale', factor=2)


def test_every_operation_follows_shapes_without_values() -> None:
    """A plan's shapes are checked on the meta device with the same code."""
    source = MemorySource({'v': torch.empty(6, device='meta'), 'm': torch.empty(4, 6, device='meta')})
    cases: dict[str, tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]] = {
        'narrow': ((4, 6), {'dim': 1, 'start': 1, 'stop': 3}, (4, 2)),
        'permute': ((4, 6), {'dims': [1, 0]}, (6, 4)),
        'reshape': ((4, 6), {'shape': [24]}, (24,)),
        'index': ((4, 6), {'dim': 0, 'indices': [0]}, (1, 6)),
        'scale': ((4, 6), {'factor': 2.0}, (4, 6)),
        'collapse_time': ((4, 6, 2, 3, 3), {'how': 'mean'}, (4, 6, 3, 3)),
        'resize_positions': (
            (1, 4, 6), {'prefix': 0, 'grid': [2, 2], 'target_prefix': 1, 'target_grid': [1, 3]}, (1, 4, 6)),
        'expand': ((4, 6), {'dim': 0, 'size': 9, 'how': 'share'}, (9, 6)),
        'centre': ((4, 6), {'dim': 0}, (4, 6)),
        'multiply': ((4, 6), {'dim': 1, 'source': 'v'}, (4, 6)),
        'divide': ((4, 6), {'dim': 1, 'source': 'v'}, (4, 6)),
        'normalise': ((4,), {'matrix': 'm'}, (4,)),
        'add_product': ((4,), {'matrix': 'm', 'vector': 'v', 'rows': None}, (4,)),
        'fill': ((4, 6), {'shape': [2], 'value': 1.0}, (2,)),
    }  # fmt: skip
    assert {*cases, 'project'} == set(OPERATIONS)
    for op, (shape, args, expected) in cases.items():
        assert run(torch.empty(shape, device='meta'), op, source, **args).shape == expected
