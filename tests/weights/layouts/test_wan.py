"""Wan's two sets of names are each other's inverse, and its modulation at rest is that of its formula."""

from __future__ import annotations

import pytest
import torch
from small_wan import SMALL, small_wan
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.weights.layouts.skeletons import wan_layout
from kdplugin.weights.layouts.wan import StaticWan, block_count, diffusers_names, sinusoid, to_diffusers, to_native
from kdplugin.weights.reading.tensor_source import MemorySource


def test_names_there_and_back() -> None:
    names = list(wan_layout())
    native = [to_native(name) for name in names]
    assert len(set(native)) == len(names)
    assert [to_diffusers(name) for name in native] == names


@pytest.mark.parametrize(
    ('native', 'diffusers'),
    [
        ('patch_embedding.weight', 'patch_embedding.weight'),
        ('time_embedding.2.bias', 'condition_embedder.time_embedder.linear_2.bias'),
        ('time_projection.1.weight', 'condition_embedder.time_proj.weight'),
        ('blocks.7.modulation', 'blocks.7.scale_shift_table'),
        ('blocks.7.self_attn.o.weight', 'blocks.7.attn1.to_out.0.weight'),
        ('blocks.7.cross_attn.norm_k.weight', 'blocks.7.attn2.norm_k.weight'),
        ('blocks.7.norm3.bias', 'blocks.7.norm2.bias'),
        ('blocks.7.ffn.0.weight', 'blocks.7.ffn.net.0.proj.weight'),
        ('head.modulation', 'scale_shift_table'),
        ('head.head.weight', 'proj_out.weight'),
    ],
)
def test_known_names(native: str, diffusers: str) -> None:
    assert to_diffusers(native) == diffusers
    assert to_native(diffusers) == native


def test_strange_names_are_refused() -> None:
    for name in ('blocks.0.img_emb.weight', 'encoder.weight', 'blocks.0.norm2.weight'):
        with pytest.raises(CheckpointError, match=rf"Expected a tensor of Wan's .* but got '{name}'\. Give that part"):
            to_diffusers(name)


def test_native_checkpoints_are_seen_under_diffusers_names() -> None:
    tensors = small_wan()
    native = MemorySource({to_native(name): value for name, value in tensors.items()})
    seen = diffusers_names(native)
    assert list(seen) == list(tensors)
    assert all(torch.equal(seen[name], value) for name, value in tensors.items())
    own = MemorySource(tensors)
    assert diffusers_names(own) is own


def test_the_static_view_has_the_mean_modulation_of_the_formula() -> None:
    tensors = small_wan()
    view = StaticWan(MemorySource(tensors), timesteps=(0, 100), samples=5)
    waves = sinusoid(torch.tensor([0.0, 25, 50, 75, 100]), 8)
    embedder = 'condition_embedder.time_embedder.linear_'
    hidden = F.silu(F.linear(waves, tensors[f'{embedder}1.weight'], tensors[f'{embedder}1.bias']))
    embedding = F.linear(hidden, tensors[f'{embedder}2.weight'], tensors[f'{embedder}2.bias'])
    projection = [tensors[f'condition_embedder.time_proj.{part}'] for part in ('weight', 'bias')]
    modulation = F.linear(F.silu(embedding), *projection).unflatten(1, (6, 12)) + tensors['blocks.1.scale_shift_table']
    shift, scale, gate, shift2, scale2, gate2 = modulation.mean(0)
    expected = {'norm1.bias': shift, 'norm1.weight': 1 + scale, 'gate1': gate, 'norm3.bias': shift2,
                'norm3.weight': 1 + scale2, 'gate2': gate2}  # fmt: skip
    for name, value in expected.items():
        assert torch.allclose(view[f'blocks.1.{name}'], value, atol=1e-5)
        assert view.shape(f'blocks.1.{name}') == (12,)
    assert view['proj_out.bias'] is not None
    assert len(view) == len(list(view)) == len(tensors) + 18
    assert 'blocks.2.gate2' in view
    assert 'blocks.3.gate2' not in view


def test_embeddings_are_cosines_then_sines() -> None:
    """Of t and t / 100 at width 4."""
    expected = torch.tensor([[-0.41615, 0.99980, 0.90930, 0.02000]])
    assert torch.allclose(sinusoid(torch.tensor([2.0]), 4), expected, atol=1e-4)


def test_the_static_view_has_no_values_on_the_meta_device() -> None:
    view = StaticWan(MemorySource(wan_layout(**SMALL)))
    assert view['blocks.0.norm1.weight'].is_meta
    assert view.dtype('blocks.0.gate1') == torch.float32
    assert block_count(view) == 3
    assert block_count(['head.weight']) == 0
