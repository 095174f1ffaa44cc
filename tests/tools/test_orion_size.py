"""The benchmark of sizes, on one block."""

from __future__ import annotations

import orion_size
import torch


def test_parameters_of_the_whole_depth_on_meta() -> None:
    with torch.device('meta'):
        counts = {
            name: sum(value.numel() for value in orion_size.build(**kept).parameters())
            for name, kept in orion_size.KEPT.items()
        }
    assert counts == {'teacher': 303_388_608, 'heads8': 253_032_384, 'half': 152_262_624}


def test_operations_of_the_teacher_by_hand() -> None:
    """Patches, three blocks (two in windows of a padded grid of 48 x 48), each a linear part, attention, an FFN."""
    dim, hidden, tokens, padded = 1024, 2730, 1600, 2304
    window = 4 * padded * dim**2 + 2 * 9 * 256**2 * dim
    whole = 4 * tokens * dim**2 + 2 * tokens**2 * dim
    expected = 2 * (tokens * 768 * dim + 2 * window + whole + 3 * 3 * tokens * dim * hidden)
    with torch.device('meta'):
        model = orion_size.build(depth=3, **orion_size.KEPT['teacher'])
    assert orion_size.count_flops(model, 640) == expected


def test_a_small_run_says_all() -> None:
    small = dict(embed_dim=128, img_size=64, window_size=4)
    results = orion_size.measure(64, 1, 3, small)
    assert list(results) == ['teacher', 'heads8', 'half', 'how']
    assert results['teacher']['speedup'] == 1
    assert results['half']['flops'] < results['heads8']['flops']
    assert '64x64' in results['how']['speedup']
