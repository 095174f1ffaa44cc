"""Entropy of attention."""

from __future__ import annotations

import math

import pytest
import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, StandIn, stirred, tokens
from torch import Tensor, nn

from kdplugin.errors import ConfigError
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.scorers import entropy
from kdplugin.pruning.scorers.entropy import attention_entropy, entropy_scores


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def reference(scores: Tensor) -> Tensor:
    return torch.distributions.Categorical(logits=scores).entropy().mean((0, 2))


@pytest.mark.parametrize('rows', [1, 1 << 24])
def test_it_is_the_entropy_of_the_softmax(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy, 'ROWS', rows)
    q, k = drawn(5, 3, 7, 4), drawn(5, 3, 9, 4, seed=1)
    torch.testing.assert_close(attention_entropy(q, k), reference(q @ k.transpose(-2, -1) / 2))
    torch.testing.assert_close(attention_entropy(q, k, scale=0.3), reference(q @ k.transpose(-2, -1) * 0.3))
    mask = drawn(5, 1, 7, 9, seed=2)
    torch.testing.assert_close(attention_entropy(q, k, mask=mask), reference(q @ k.transpose(-2, -1) / 2 + mask))


def test_masked_keys_and_padded_queries_do_not_count() -> None:
    q, k = drawn(2, 3, 7, 4), drawn(2, 3, 9, 4, seed=1)
    mask = torch.arange(9) < 6
    torch.testing.assert_close(attention_entropy(q, k, mask=mask), attention_entropy(q, k[:, :, :6]))
    real = (torch.arange(7) < 5).expand(2, 7)
    torch.testing.assert_close(attention_entropy(q, k, real=real), attention_entropy(q[:, :, :5], k))


@torch.no_grad()
def test_even_attention_scores_zero_and_sharp_attention_one() -> None:
    model = stirred(StandIn())
    attention = model.blocks[1].attn
    attention.q_proj.weight[:HEAD_DIM] = 0
    attention.q_bias[:HEAD_DIM] = 0
    attention.q_proj.weight[HEAD_DIM : 2 * HEAD_DIM] *= 1e4
    scores = entropy_scores(Calibration(model, [tokens(2), tokens(3, seed=2)]), 'heads')
    assert scores.shape == (DEPTH, HEADS)
    assert abs(float(scores[1, 0])) < 1e-6
    assert float(scores[1, 1]) > 0.99
    assert (scores[1, 2:] > 0.001).all()
    assert (scores[1, 2:] < 0.99).all()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@torch.no_grad()
def test_the_scores_of_a_block_by_hand() -> None:
    model, x = stirred(StandIn()), tokens(3)
    attention, y = model.blocks[0].attn, model.blocks[0].norm1(x + model.pos_embed)
    q, k = attention.q_proj(y) + attention.q_bias, attention.k_proj(y)
    q, k = (part.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2) for part in (q, k))
    expected = 1 - reference(q @ k.transpose(-2, -1) * HEAD_DIM**-0.5) / math.log(9)
    torch.testing.assert_close(entropy_scores(Calibration(model, [x]), 'heads')[0].float(), expected)


def test_what_cannot_be_scored() -> None:
    model = stirred(StandIn())
    with pytest.raises(ConfigError, match="Expected unit='heads' for attention entropy but got 'neurons'"):
        entropy_scores(Calibration(model, [tokens()]), 'neurons')

    class Plain(nn.Module):
        num_heads = HEADS

        def __init__(self, attention: nn.Module) -> None:
            super().__init__()
            self.__dict__['_modules'] = attention._modules

        def forward(self, x: Tensor) -> Tensor:
            return self.proj(self.v_proj(x))

    model.blocks[2].attn = Plain(model.blocks[2].attn)
    with pytest.raises(ConfigError, match='Expected the attention of block 2 to call scaled_dot_product_attention'):
        entropy_scores(Calibration(model, [tokens()]), 'heads')
