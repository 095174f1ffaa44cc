"""Heads stay whole, rotary pairs stay pairs, and attention computes the same where nothing is lost."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup
from kdplugin.weights.projection.bases import Basis, make_basis
from kdplugin.weights.projection.head_bases import rotary_rows

Weights = dict[str, Tensor]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attention_weights(width: int, stream: int = 10) -> Weights:
    shapes = {'q': (width, stream), 'k': (width, stream), 'v': (width, stream), 'o': (stream, width)}
    return {name: numbers(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}


def rotated(heads: Tensor, halves: bool) -> Tensor:
    """Turn the pairs of [heads, L, S] by angles position * 100^(-2i / S), interleaved or in halves."""
    size = heads.shape[-1]
    angles = torch.outer(torch.arange(heads.shape[1]).double(), 100.0 ** (-torch.arange(0, size, 2).double() / size))
    if halves:
        first, second = heads[..., : size // 2], heads[..., size // 2 :]
    else:
        first, second = heads[..., ::2], heads[..., 1::2]
    turned = first * angles.cos() - second * angles.sin(), first * angles.sin() + second * angles.cos()
    return torch.cat(turned, -1) if halves else torch.stack(turned, -1).flatten(-2)


def attend(weights: Weights, heads: int, tokens: Tensor, rope: str = '') -> Tensor:
    q, k, v = ((tokens @ weights[n].T).unflatten(-1, (heads, -1)).transpose(0, 1) for n in 'qkv')
    if rope:
        q, k = rotated(q, rope == 'halves'), rotated(k, rope == 'halves')
    return F.scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1) @ weights['o'].T


def basis(weights: Weights, width: int, method: str, heads: tuple[int, int], rotary: str = 'both') -> Basis:
    units = len(weights['q']) // heads[0], width // heads[1]
    group = AxisGroup('heads', len(weights['q']), width, method, (), units[0], units[1], rotary=rotary)
    grams = {}
    for side, name in {'q': 'q', 'k': 'k', 'out': 'v', 'in': 'o'}.items():
        rows = (weights[name].T if name == 'o' else weights[name]).unflatten(0, (heads[0], -1))
        grams[side] = rows @ rows.transpose(1, 2)
    return make_basis(group, grams if method == 'svd' else None)


def project(weights: Weights, one: Basis) -> Weights:
    sides = {'q': ('q', 0), 'k': ('k', 0), 'v': ('out', 0), 'o': ('in', 1)}
    return {name: one.down(side)(weights[name], dim) for name, (side, dim) in sides.items()}


@pytest.mark.parametrize('method', ['truncate', 'svd'])
def test_whole_heads_are_kept(method: str) -> None:
    weights = attention_weights(24)
    weights['v'][4:8] *= 5
    weights['o'][:, 16:20] *= 6
    small = project(weights, basis(weights, 8, method, (6, 2)))
    kept = [0, 1] if method == 'truncate' else [1, 4]
    for name in 'qkv':
        assert torch.equal(small[name], weights[name].unflatten(0, (6, 4))[kept].flatten(0, 1))
    assert torch.equal(small['o'], weights['o'].unflatten(1, (6, 4))[:, kept].flatten(1))


def test_average_of_equal_heads_computes_the_same() -> None:
    half = attention_weights(12)
    rows = torch.arange(12).unflatten(0, (3, 4)).repeat_interleave(2, 0).flatten()
    weights = {name: half[name][rows] for name in 'qkv'} | {'o': half['o'][:, rows]}
    small = project(weights, basis(weights, 12, 'average', (6, 3)))
    tokens = numbers(7, 10, seed=9)
    assert torch.allclose(attend(small, 3, tokens), attend(weights, 6, tokens))


@pytest.mark.parametrize('heads', [7, 9, 12])
@pytest.mark.parametrize('method', ['repeat', 'svd', 'zero'])
def test_more_heads_compute_the_same(heads: int, method: str) -> None:
    weights = attention_weights(24)
    wide = project(weights, basis(weights, heads * 4, method, (6, heads)))
    tokens = numbers(7, 10, seed=9)
    assert wide['v'].shape == (heads * 4, 10)
    assert torch.allclose(attend(wide, heads, tokens), attend(weights, 6, tokens))


@pytest.mark.parametrize('rope', ['', 'interleaved', 'halves'])
@pytest.mark.parametrize('method', ['repeat', 'zero'])
def test_wider_heads_compute_the_same_under_their_own_scale_and_rotation(rope: str, method: str) -> None:
    weights = attention_weights(24)
    tokens = numbers(7, 10, seed=9)
    wide = project(weights, basis(weights, 48, method, (3, 3), rotary=rope or 'none'))
    assert wide['q'].shape == (48, 10)
    assert torch.allclose(attend(wide, 3, tokens, rope), attend(weights, 3, tokens, rope))


@pytest.mark.parametrize('rotary', ['both', 'interleaved', 'halves'])
@pytest.mark.parametrize(('old', 'new'), [(64, 32), (64, 48), (128, 64), (16, 4), (12, 4), (6, 2)])
def test_rotary_pairs_stay_pairs(old: int, new: int, rotary: str) -> None:
    old_of = dict(rotary_rows(old, new, rotary))
    assert sorted(old_of) == list(range(new))
    assert len(set(old_of.values())) == new
    if rotary != 'halves':
        assert all(old_of[i] % 2 == 0 and old_of[i + 1] == old_of[i] + 1 for i in range(0, new, 2))
    if rotary == 'halves' or (rotary == 'both' and old % 4 == 0):
        assert all(old_of[i + new // 2] == old_of[i] + old // 2 for i in range(new // 2))


def test_odd_heads_have_no_pairs() -> None:
    assert rotary_rows(5, 3) == [(0, 0), (1, 1), (2, 3)]
    with pytest.raises(CheckpointError, match=r"heads of whole pairs, but got 'interleaved' for 5 to 3\. Correct the"):
        rotary_rows(5, 3, 'interleaved')


def test_kept_pairs_have_the_frequencies_of_the_narrower_head() -> None:
    """theta^(-2j / T) of the new pair j is theta^(-2i / S) of the old pair i = j S / T."""
    for rotary in ('interleaved', 'both'):
        assert [old // 2 for _, old in rotary_rows(64, 32, rotary)[::2]] == list(range(0, 32, 2))
    assert [old for _, old in rotary_rows(64, 32, 'halves')] == list(range(0, 64, 2))
    assert rotary_rows(32, 64) == [(wide, narrow) for narrow, wide in rotary_rows(64, 32)]


def test_narrower_heads_scale_their_scores() -> None:
    """Scores are divided by sqrt(T) in place of sqrt(S): q and k bring (T / S)^(1/4) each."""
    weights = attention_weights(24)
    small = project(weights, basis(weights, 12, 'truncate', (3, 3)))
    kept = [old for _, old in rotary_rows(8, 4)]
    assert torch.allclose(small['q'][:4], weights['q'][kept] * 0.5**0.25)
    assert torch.equal(small['v'][:4], weights['v'][:4])


def test_heads_of_low_rank_are_kept_whole() -> None:
    """A head whose scores and values have rank 4 computes the same with 4 of its 8 values, if q and k may turn."""
    weights = attention_weights(24)
    for name in 'qv':
        weights[name] = torch.cat([numbers(8, 4, seed=i) @ numbers(4, 10, seed=i + 50) for i in range(3)])
    tokens = numbers(7, 10, seed=9)
    small = project(weights, basis(weights, 12, 'svd', (3, 3), rotary='none'))
    assert torch.allclose(attend(small, 3, tokens), attend(weights, 3, tokens), atol=1e-5)
    plain = project(weights, basis(weights, 12, 'truncate', (3, 3)))
    assert not torch.allclose(attend(plain, 3, tokens), attend(weights, 3, tokens), atol=0.1)


@pytest.mark.parametrize('method', ['truncate', 'svd'])
def test_narrower_copies_of_a_head_hold_its_values_in_parts(method: str) -> None:
    """3 heads of 8 become 6 of 4: each pair of copies holds all values of its head, and the same scores."""
    weights = attention_weights(24)
    one = basis(weights, 24, method, (3, 6), rotary='none')
    small = project(weights, one)
    assert torch.allclose(small['o'] @ small['v'], weights['o'] @ weights['v'])
    assert torch.equal(small['q'][:12], small['q'][12:])
    assert torch.allclose(one.inward.dense() @ one.out.dense(), torch.eye(24).double(), atol=1e-6)


def test_tables_by_head_and_within_heads() -> None:
    """A table of 6 heads becomes one of 4; a vector within a head of 4 values keeps a pair, with the scores' scale."""
    one = make_basis(AxisGroup('heads', 24, 8, 'average', (), 4, 2))
    assert one.down('head')(torch.tensor([1.0, 3, 5, 7, 9, 11]), 0).tolist() == [2, 5, 8, 11]
    assert one.down('head').to == 4
    assert torch.equal(one.down('dim')(torch.eye(4), 0), torch.eye(4)[:2] * 0.5**0.25)


def test_a_width_without_whole_heads_is_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r'Expected whole heads of 4 but got a width of 10\. Give the head counts'
    ):
        make_basis(AxisGroup('heads', 24, 10, 'truncate', (), 4))
