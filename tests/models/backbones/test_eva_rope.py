"""Rotary tables are those of the formula at every grid, cost one computation, and never come from a file."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.models.backbones.eva_rope import CACHED_GRIDS, RotaryPositions, rotary_tables, rotate


def formula(x: np.ndarray, height: int, width: int, length: float) -> np.ndarray:
    """Rotate x [A, L, d] pair by pair as complex numbers in float64: theta 1e4, t = arange(n) / n * length."""
    result = np.empty_like(x)
    half = x.shape[-1] // 2
    for row in range(height):
        for column in range(width):
            for axis, place in enumerate((row / height * length, column / width * length)):
                for pair in range(half // 2):
                    turn = np.exp(1j * place * 1e4 ** (-2 * pair / half))
                    first = axis * half + 2 * pair
                    token = row * width + column
                    value = (x[:, token, first] + 1j * x[:, token, first + 1]) * turn
                    result[:, token, first], result[:, token, first + 1] = value.real, value.imag
    return result


@pytest.mark.parametrize(('grid', 'length'), [((4, 4), 16), ((3, 5), 16), ((6, 2), 7)])
def test_rotation_is_that_of_the_formula(grid: tuple[int, int], length: int) -> None:
    x = torch.randn(2, 3, grid[0] * grid[1], 64, dtype=torch.float64)
    positions = RotaryPositions((4, 4), 64, length, interpolated=True)
    wanted = np.stack([formula(image.numpy(), *grid, length) for image in x])
    turned = positions(x, grid)
    assert np.abs(turned.numpy() - x.numpy()).max() > 1
    np.testing.assert_allclose(turned.numpy(), wanted, atol=2e-5)


def test_positions_count_tokens_without_interpolation() -> None:
    x = torch.randn(1, 2, 15, 8, dtype=torch.float64)
    turned = RotaryPositions((2, 2), 8, 16, interpolated=False)(x, (3, 5))
    cosines, sines = rotary_tables((15, 15), 8, pretrained_length=15)
    rows = [row * 15 + column for row in range(3) for column in range(5)]
    assert torch.allclose(turned, rotate(x, cosines[rows], sines[rows]))


def test_products_of_queries_and_keys_depend_on_distance_alone() -> None:
    query, key = torch.randn(2, 1, 64, dtype=torch.float64)
    positions = RotaryPositions((8, 8), 64, 16, interpolated=True)
    q, k = (positions(one.expand(1, 1, 64, 64), (8, 8))[0, 0].unflatten(0, (8, 8)) for one in (query, key))
    assert torch.allclose(q[1, 2] @ k[4, 3], q[3, 5] @ k[6, 6], atol=1e-5)
    assert not torch.allclose(q[1, 2] @ k[4, 3], q[1, 2] @ k[5, 3], atol=1e-2)


def test_golden_values() -> None:
    cosines, sines = rotary_tables((40, 40), 64)
    assert cosines.shape == (1600, 64)
    # token 41 is row 1, column 1: angle 0.4 in both first pairs, 0.4 / 10^(4/16) in the second
    assert cosines[41, [0, 1, 32, 33]].tolist() == pytest.approx([0.92106099] * 4, abs=1e-6)
    assert sines[41, [2, 34]].tolist() == pytest.approx([np.sin(0.4 * 1e4 ** (-1 / 16))] * 2, abs=1e-6)
    assert sines[1, 0] == 0  # row 0
    assert sines[1, 32] == pytest.approx(0.38941834, abs=1e-6)


def test_tables_of_a_grid_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    x = torch.randn(1, 1, 6, 8)
    first = positions(x, (2, 3))
    monkeypatch.setattr(positions, '_compute', lambda *args, **where: pytest.fail('computed again'))
    assert torch.equal(positions(x, (2, 3)), first)
    assert positions.tables((4, 4))[0] is positions.freqs_cos
    with pytest.raises(pytest.fail.Exception):
        positions(x, (3, 2))


def test_the_cache_is_bounded() -> None:
    positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    for width in range(1, CACHED_GRIDS + 5):
        positions.tables((1, width))
    assert len(positions._others) == CACHED_GRIDS
    assert positions.tables((1, CACHED_GRIDS + 4))[0].shape == (CACHED_GRIDS + 4, 8)


def test_tables_made_in_inference_serve_training() -> None:
    positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    with torch.inference_mode():
        positions(torch.randn(1, 1, 6, 8), (2, 3))
    x = torch.randn(1, 1, 6, 8, requires_grad=True)
    positions(x, (2, 3)).square().sum().backward()
    assert torch.allclose(x.grad, 2 * x)  # rotations keep lengths


def test_cached_tables_follow_a_cast() -> None:
    positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    assert positions.tables((2, 3))[0].dtype == torch.float32
    assert positions.bfloat16().tables((2, 3))[0].dtype == torch.bfloat16


def test_a_meta_module_has_meta_tables_of_any_grid() -> None:
    with torch.device('meta'):
        positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    assert positions.freqs_cos.is_meta
    assert positions(torch.empty(1, 1, 6, 8, device='meta'), (2, 3)).shape == (1, 1, 6, 8)


@pytest.mark.parametrize('rows', [16, 36])
@pytest.mark.parametrize('assign', [False, True])
def test_loading_computes_the_tables_and_takes_none(rows: int, assign: bool) -> None:
    wanted = RotaryPositions((4, 4), 8, 16, interpolated=True)
    positions = nn.Sequential(copy.deepcopy(wanted))
    file = {f'0.freqs_{part}': torch.full((rows, 8), torch.nan) for part in ('cos', 'sin')}
    positions[0].freqs_cos.zero_()
    positions.load_state_dict(file, strict=True, assign=assign)
    assert all(torch.equal(positions[0].get_buffer(name), value) for name, value in wanted.state_dict().items())
    assert file['0.freqs_cos'].isnan().all()


def test_a_file_without_tables_loads_strictly_and_a_stranger_does_not() -> None:
    positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    positions.load_state_dict({}, strict=True)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*freqs_tan'):
        positions.load_state_dict({'freqs_tan': torch.zeros(1)}, strict=True)


def test_meta_modules_get_real_tables_when_weights_are_assigned() -> None:
    with torch.device('meta'):
        positions = RotaryPositions((4, 4), 8, 16, interpolated=True)
    file: OrderedDict[str, Tensor] = OrderedDict(freqs_cos=torch.zeros(9, 8), freqs_sin=torch.zeros(9, 8))
    positions.load_state_dict(file, strict=True, assign=True)
    assert torch.equal(positions.freqs_sin, rotary_tables((4, 4), 8)[1])


def test_widths_that_cannot_be_rotated_are_refused() -> None:
    with pytest.raises(ConfigError, match=r'Expected heads of a width that divides by 4, .* but got 6'):
        RotaryPositions((4, 4), 6, 16, interpolated=True)
