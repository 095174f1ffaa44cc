"""Positions: those of diffusers' video transformer for its first frame, and of the pairs that projection keeps."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from kdplugin.models.generators.wan_rope import axis_widths, kept_pairs, rotary_angles, rotate
from kdplugin.weights.projection.head_bases import rotary_rows


@pytest.mark.parametrize('head', [12, 16, 128])
def test_angles_of_the_first_frame_are_diffusers_own(head: int) -> None:
    rope = WanRotaryPosEmbed(head, (1, 2, 2), 64)
    cosine, sine = rope(torch.zeros(1, 16, 1, 6, 10))
    angles = rotary_angles((3, 5), head, head)
    torch.testing.assert_close(angles.cos().float(), cosine[0, :, 0, 0::2], rtol=0, atol=1e-6)
    torch.testing.assert_close(angles.sin().float(), sine[0, :, 0, 1::2], rtol=0, atol=1e-6)


def test_widths_of_the_axes_add_up() -> None:
    assert axis_widths(128) == (44, 42, 42)
    assert all(sum(axis_widths(head)) == head for head in range(2, 200, 2))


@pytest.mark.parametrize(('source', 'target'), [(128, 64), (128, 96), (16, 8), (12, 6), (12, 12), (20, 10)])
@pytest.mark.parametrize('rotary', ['both', 'interleaved'])
def test_kept_pairs_are_those_of_the_projection(source: int, target: int, rotary: str) -> None:
    rows = [row for _, row in rotary_rows(source, target, rotary)]
    pairs = kept_pairs(source, target)
    assert rows == [2 * pair + part for pair in pairs for part in range(2)]


def test_a_narrow_head_turns_with_the_frequencies_of_its_pairs() -> None:
    whole, half = rotary_angles((4, 4), 16, 16), rotary_angles((4, 4), 16, 8)
    assert torch.equal(half, whole[:, [0, 2, 4, 6]])


def test_turning_keeps_lengths_and_depends_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    angles = rotary_angles((5, 5), 12, 12)
    cosine, sine = angles.cos().float(), angles.sin().float()
    query, key = torch.randn(2, 12)
    turned = [rotate(value.expand(1, 1, 25, 12), (cosine, sine))[0, 0] for value in (query, key)]
    torch.testing.assert_close(turned[0].norm(dim=-1), query.norm().expand(25))
    scores = (turned[0] @ turned[1].T).unflatten(0, (5, 5)).unflatten(2, (5, 5))
    torch.testing.assert_close(scores[0, 0, 1, 2], scores[2, 1, 3, 3], rtol=1e-5, atol=1e-5)
    assert (scores[0, 0, 1, 2] - scores[0, 0, 2, 1]).abs() > 1e-3


def test_half_precision_comes_back_as_it_was() -> None:
    angles = rotary_angles((2, 2), 8, 8)
    assert (
        rotate(torch.ones(1, 1, 4, 8).bfloat16(), (angles.cos().float(), angles.sin().float())).dtype == torch.bfloat16
    )
