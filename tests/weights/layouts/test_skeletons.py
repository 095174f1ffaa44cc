"""The layouts have the tensors and parameters that their sources state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kdplugin.weights.layouts.skeletons import Layout, eva_vit_layout, wan_layout, wan_lite_layout


@pytest.mark.parametrize(
    ('make', 'tensors', 'parameters'),
    [
        (wan_layout, 1095, 14_288_491_584),
        (lambda: wan_layout(1536, 8960, 30), 825, 1_418_996_800),
        (wan_lite_layout, 202, 214_203_396),
        (lambda: wan_lite_layout(256, 4), 58, 4_752_132),
        (eva_vit_layout, 511, 303_388_608),
    ],
)
def test_counts(make: Callable[[], Layout], tensors: int, parameters: int) -> None:
    layout = make()
    assert len(layout) == tensors
    assert sum(value.numel() for name, value in layout.items() if 'freqs' not in name) == parameters
    assert all(value.is_meta for value in layout.values())


def test_shapes_that_tell_one_form_from_another() -> None:
    wan, eva, lite = wan_layout(), eva_vit_layout(), wan_lite_layout()
    assert wan['condition_embedder.time_proj.weight'].shape == (30720, 5120)
    assert wan['proj_out.weight'].shape == (64, 5120)
    assert eva['rope_glb.freqs_cos'].shape == (1600, 64)
    assert eva['blocks.2.attn.rope.freqs_sin'].shape == (1600, 64)
    assert eva['blocks.3.attn.rope.freqs_sin'].shape == (256, 64)
    assert eva['blocks.0.mlp.w1.weight'].shape == (2730, 1024)
    assert lite['blocks.0.attn.in_proj_weight'].shape == (3072, 1024)
