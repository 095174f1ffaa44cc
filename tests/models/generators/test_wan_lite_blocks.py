"""A block: diffusers' own with the same weights, and what a mask does."""

from __future__ import annotations

import torch
from wan_fixtures import video_model

from kdplugin.models.generators.wan_lite_blocks import WanLiteAttention, WanLiteBlock, WanLiteConditions, layer_norm
from kdplugin.models.generators.wan_rope import rotary_angles


def test_a_block_with_diffusers_weights_is_diffusers_block() -> None:
    teacher = video_model()
    theirs, ours = teacher.blocks[1], WanLiteBlock(24, 40, 2, 1e-6)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    torch.manual_seed(0)
    hidden, context, modulation = torch.randn(2, 24, 24), torch.randn(2, 5, 24), torch.randn(2, 6, 24)
    angles = rotary_angles((4, 6), 12, 12)
    expected = theirs(hidden, context, modulation, teacher.rope(torch.zeros(1, 4, 1, 8, 12)))
    found = ours(hidden, context, modulation, (angles.cos().float(), angles.sin().float()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_conditions_with_diffusers_weights_are_diffusers_conditions() -> None:
    theirs, ours = video_model().condition_embedder, WanLiteConditions(24, 10, 16)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    timestep, text = torch.tensor([3.0, 871.5]), torch.randn(2, 5, 10)
    embedded, modulation, context, _ = theirs(timestep, text)
    for found, expected in zip(
        ours(timestep, text), (embedded, modulation.unflatten(1, (6, -1)), context), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_masked_tokens_do_not_matter() -> None:
    torch.manual_seed(0)
    attention = WanLiteAttention(8, 2, 1e-6)
    hidden, text = torch.randn(1, 3, 8), torch.randn(1, 4, 8)
    mask = torch.tensor([[True, True, False, False]])[:, None, None]
    masked = attention(hidden, text, mask=mask)
    torch.testing.assert_close(masked, attention(hidden, text[:, :2]))
    assert not torch.allclose(masked, attention(hidden, text))


def test_norms_are_in_single_precision() -> None:
    assert layer_norm(torch.randn(2, 8).bfloat16(), 1e-6).dtype == torch.float32
