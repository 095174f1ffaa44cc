"""Wan to WanLiteStudent: q from q, k from k, v from v; a modulation at rest and plain scores are kept exactly."""

from __future__ import annotations

import pytest
import torch
from small_wan import small_wan
from torch import Tensor
from torch.nn import functional as F

from kdplugin.weights import presets
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.layouts.skeletons import wan_layout, wan_lite_layout
from kdplugin.weights.layouts.wan import to_native
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.presets import RANDOM, wan_lite_plan
from kdplugin.weights.projection.bases import make_basis
from kdplugin.weights.reading.io import hash_tensors
from kdplugin.weights.reports.report import PlanReport

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _narrow_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, 'HEAD', 4)


def lite(hidden: int = 12, depth: int = 2) -> State:
    layout = wan_lite_layout(hidden, depth)
    for number in range(depth):
        block = f'blocks.{number}.mlp'
        sizes = {'0.weight': (20, hidden), '0.bias': (20,), '2.weight': (hidden, 20)}
        layout |= {f'{block}.{name}': torch.empty(shape, device='meta') for name, shape in sizes.items()}
    return layout


@pytest.mark.parametrize(('dim', 'ffn', 'layers'), [(1536, 8960, 30), (5120, 13824, 40)])
@pytest.mark.parametrize('method', ['truncate', 'average', 'svd'])
def test_plans_for_the_real_sizes_cover_all_but_the_ends(
    monkeypatch: pytest.MonkeyPatch, dim: int, ffn: int, layers: int, method: str
) -> None:
    monkeypatch.setattr(presets, 'HEAD', 128)
    plan = wan_lite_plan(wan_layout(dim, ffn, layers), method=method)
    report = PlanReport(plan)
    assert report.totals['projected']['parameters'] == 201_539_584
    assert report.totals['random'] == {'tensors': 10, 'parameters': 12_663_812}
    assert report.coverage['parameters'] == pytest.approx(0.94088, abs=1e-5)
    assert {entry.target.split('.')[0] for entry in plan.entries if not entry.loads} == set(RANDOM)
    assert all(entry.reason for entry in plan.entries)
    assert not plan.notes
    assert plan['blocks.15.mlp.2.bias'].sources == (f'blocks.{layers - 1}.ffn.net.2.bias',)
    heads = plan.groups['blocks.0.attn.heads']
    assert (heads.unit, heads.target_unit, heads.target_width, heads.rotary) == (128, 64, 1024, 'none')


def test_q_comes_from_q_k_from_k_and_v_from_v() -> None:
    plan = wan_lite_plan(small_wan(), lite(8, 2), heads=2, method='truncate')
    for leaf in ('in_proj_weight', 'in_proj_bias'):
        entry = plan[f'blocks.1.attn.{leaf}']
        assert entry.sources == tuple(f'blocks.2.attn1.to_{part}.{leaf[8:]}' for part in 'qkv')
    tensors, teacher = apply_plan(plan, small_wan()).tensors, small_wan()
    assert torch.equal(tensors['blocks.1.attn.in_proj_weight'][16:], teacher['blocks.2.attn1.to_v.weight'][:8, :8])


def test_where_everything_goes() -> None:
    plan = wan_lite_plan(small_wan(), lite(8, 2), heads=2)
    used = {name for entry in plan.entries for name in entry.sources}
    assert plan.unused['blocks.1.ffn.net.2.bias'] == 'layer 1 was not chosen'
    assert plan.unused['blocks.0.attn2.to_k.weight'] == 'the student has no cross-attention'
    assert plan.unused['patch_embedding.weight'] == RANDOM['conv_in']
    assert not used & plan.unused.keys()
    assert all(plan.unused.values())


def test_both_sets_of_names_and_json_give_the_same() -> None:
    teacher = small_wan()
    plan = wan_lite_plan(teacher, lite(8, 2), heads=2)
    expected = hash_tensors(apply_plan(plan, teacher).tensors)
    native = {to_native(name): value for name, value in teacher.items()}
    assert hash_tensors(apply_plan(plan, native).tensors) == expected
    assert hash_tensors(apply_plan(ProjectionPlan.from_json(plan.to_json()), native).tensors) == expected


def block_of_wan(tensors: State, block: str, x: Tensor) -> Tensor:
    """Return a block of Wan without cross-attention and rotary embeddings, at the modulation of timestep 0."""
    hidden = F.silu(sum_of(tensors, 'condition_embedder.time_embedder.linear_1', torch.tensor([1.0] * 4 + [0.0] * 4)))
    embedding = sum_of(tensors, 'condition_embedder.time_embedder.linear_2', hidden)
    time = sum_of(tensors, 'condition_embedder.time_proj', F.silu(embedding)).reshape(6, -1)
    shift, scale, gate, shift2, scale2, gate2 = time + tensors[f'{block}.scale_shift_table'][0]
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale) + shift
    q, k, v = (sum_of(tensors, f'{block}.attn1.to_{part}', normed) for part in 'qkv')
    q = F.rms_norm(q, q.shape[-1:], tensors[f'{block}.attn1.norm_q.weight'])
    k = F.rms_norm(k, k.shape[-1:], tensors[f'{block}.attn1.norm_k.weight'])
    x = x + sum_of(tensors, f'{block}.attn1.to_out.0', attend(q, k, v, 3)) * gate
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-5) * (1 + scale2) + shift2
    return x + sum_of(tensors, f'{block}.ffn.net.2', F.silu(sum_of(tensors, f'{block}.ffn.net.0.proj', normed))) * gate2


def block_of_lite(tensors: State, block: str, x: Tensor, heads: int) -> Tensor:
    norms = [[tensors[f'{block}.norm{i}.{leaf}'] for leaf in ('weight', 'bias')] for i in (1, 2)]
    normed = F.layer_norm(x, x.shape[-1:], *norms[0])
    q, k, v = F.linear(normed, *(tensors[f'{block}.attn.in_proj_{leaf}'] for leaf in ('weight', 'bias'))).chunk(3, -1)
    x = x + sum_of(tensors, f'{block}.attn.out_proj', attend(q, k, v, heads))
    normed = F.layer_norm(x, x.shape[-1:], *norms[1])
    return x + sum_of(tensors, f'{block}.mlp.2', F.silu(sum_of(tensors, f'{block}.mlp.0', normed)))


def sum_of(tensors: State, path: str, x: Tensor) -> Tensor:
    return F.linear(x, tensors[f'{path}.weight'], tensors[f'{path}.bias'])


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    q, k, v = (one.unflatten(-1, (heads, -1)).transpose(-2, -3) for one in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(-2, -3).flatten(-2)


@pytest.mark.parametrize(('hidden', 'heads'), [(12, 3), (16, 4), (24, 6)])
def test_a_block_whose_time_stands_still_computes_the_same(hidden: int, heads: int) -> None:
    """Time does not move the embedding; scores are zero, so the norms of q and k do not count; wider is an isometry."""
    teacher = small_wan()
    teacher['condition_embedder.time_embedder.linear_1.weight'].zero_()
    for block in range(3):
        for part in ('weight', 'bias'):
            teacher[f'blocks.{block}.attn1.to_q.{part}'].zero_()
    plan = wan_lite_plan(teacher, lite(hidden, 2), heads=heads)
    tensors = apply_plan(plan, teacher).tensors
    x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
    stream = torch.eye(12) if hidden == 12 else make_basis(plan.groups['stream.12']).out.dense().float()
    for number, source in enumerate((0, 2)):
        expected = block_of_wan(teacher, f'blocks.{source}', x) @ stream.T
        assert torch.allclose(block_of_lite(tensors, f'blocks.{number}', x @ stream.T, heads), expected, atol=1e-3)
