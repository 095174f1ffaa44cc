from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.checks import require_finite, require_floating
from kdplugin.weights.reading.source import open_source

FINE = {
    'a.weight': torch.randn(3),
    'bn.num_batches_tracked': torch.tensor(3),
    'index': torch.arange(4),
    'mask': torch.tensor([True]),
    'gpt.attn.bias': torch.ones(1, 1, 2, 2, dtype=torch.uint8),
    'freqs': torch.ones(2, dtype=torch.complex64),
    'half.weight': torch.ones(2, dtype=torch.bfloat16),
}


def test_fine_weights_pass_and_a_whole_checkpoint_is_taken() -> None:
    for check in (require_finite, require_floating):
        check(FINE)
        check({'state_dict': FINE})
        check({'meta.weight': torch.empty(2, device='meta')})


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64])
def test_nan_and_infinity_are_named_with_their_counts(dtype: torch.dtype) -> None:
    bad = torch.tensor([1.0, float('nan'), float('inf'), float('nan')]).to(dtype)
    message = (
        r'Expected finite weights in the state dict but got NaN or infinity in 1 of 8 tensors: x\.y \(2 NaN, 1 inf'
    )
    with pytest.raises(CheckpointError, match=message):
        require_finite({**FINE, 'x.y': bad})


def test_the_first_few_are_named() -> None:
    state = {f'b.{i}': torch.tensor([float('-inf')]) for i in range(7)}
    message = r'in 7 of 7 tensors: b\.0 \(0 NaN, 1 infinite\), .*b\.4 \(0 NaN, 1 infinite\) and 2 more\. Use an earlier'
    with pytest.raises(CheckpointError, match=message):
        require_finite(state)


@pytest.mark.parametrize(
    'value',
    [
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2).to(torch.float8_e5m2),
        torch.ones(2, dtype=torch.int8),
        torch.ones(2, dtype=torch.uint8),
        torch.ones(2, dtype=torch.int32),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    ],
    ids=lambda value: str(value.dtype),
)
def test_codes_that_are_no_numbers_are_named(value: torch.Tensor) -> None:
    name = str(value.dtype).removeprefix('torch.')
    message = (
        rf'of a floating type in the state dict but got quantised ones in 1 of 8 tensors: q\.weight \({name}\)\. Use'
    )
    with pytest.raises(CheckpointError, match=message):
        require_floating({**FINE, 'q.weight': value})


@pytest.mark.parametrize('dtype', [torch.int8, torch.float8_e4m3fn])
def test_eight_bits_are_refused_under_any_name(dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match=r'quantised ones in 1 of 1 tensors: attn\.in_proj'):
        require_floating({'attn.in_proj': torch.ones(2).to(dtype)})


def test_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / 'a.safetensors'
    safetensors.torch.save_file({'w': torch.tensor([float('nan')]).to(torch.float8_e4m3fn)}, path)
    for check in (require_finite, require_floating):
        with pytest.raises(CheckpointError, match=r'in .*a\.safetensors but got .* in 1 of 1 tensors: w \('):
            check(open_source(path))


def test_only_what_is_asked_about_counts() -> None:
    weights = {'a.weight': torch.ones(2), 'b.weight': torch.ones(2, dtype=torch.int8)}
    require_floating(weights, ['a.weight'])
    with pytest.raises(CheckpointError, match=r'quantised ones in 1 of 1 tensors: b\.weight \(int8\)'):
        require_floating(weights, ['b.weight'])
