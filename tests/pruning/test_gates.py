"""Gates: what they take away, what their gradient says, and that they go."""

from __future__ import annotations

import pytest
import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, HIDDEN, StandIn, stirred, tokens
from torch import nn

from kdplugin.errors import CheckpointError
from kdplugin.pruning.blocks import blocks_of
from kdplugin.pruning.gates import gate_heads, gated, gated_layer_norm, masked
from kdplugin.pruning.plan import PruningPlan


def norm() -> nn.LayerNorm:
    made = nn.LayerNorm(6)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([1.0, -2, 3, 0.5, 1, 2]))
        made.bias.copy_(torch.tensor([0.1, 0.2, -0.3, 0.4, 0, 1]))
    return made.double()


def test_gates_of_one_are_the_plain_norm() -> None:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(gated_layer_norm(x, torch.ones(6).double(), norm()), norm()(x))


def test_gates_of_zero_and_one_are_the_norm_of_what_is_kept() -> None:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept, full = [0, 2, 5], norm()
    small = nn.LayerNorm(3).double()
    small.load_state_dict({name: value[kept] for name, value in full.state_dict().items()})
    gate = torch.zeros(6, dtype=torch.float64)
    gate[kept] = 1
    found = gated_layer_norm(x, gate, full)
    torch.testing.assert_close(found[:, kept], small(x[:, kept]))
    assert found[:, [1, 3, 4]].count_nonzero() == 0


def test_gradients_of_gates() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    gate = (torch.rand(6, generator=generator, dtype=torch.float64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, gate: gated_layer_norm(x, gate, norm()), (x, gate))
    heads = gate[:3].detach().requires_grad_()
    assert torch.autograd.gradcheck(gate_heads, (x, heads))


def test_a_gate_scales_a_head() -> None:
    found = gate_heads(torch.ones(1, 6), torch.tensor([1.0, 0.0, 0.5]))
    assert found.tolist() == [[1, 1, 0, 0, 0.5, 0.5]]


@torch.no_grad()
def test_a_running_model_with_and_without_gates() -> None:
    model, x = stirred(StandIn()), tokens()
    plain, blocks = model(x), blocks_of(model)
    ones = dict(heads=torch.ones(DEPTH, HEADS), neurons=torch.ones(DEPTH, HIDDEN))
    with gated(blocks, **ones):
        torch.testing.assert_close(model(x), plain, rtol=0, atol=1e-5)
    for name in ones:
        with gated(blocks, **{name: ones[name] * 0 + torch.eye(DEPTH, ones[name].shape[1])}):
            assert (model(x) - plain).abs().amax() > 0.1
    assert torch.equal(model(x), plain)


def test_gates_go_after_an_error() -> None:
    model = stirred(StandIn())
    with pytest.raises(ZeroDivisionError), gated(blocks_of(model), heads=torch.zeros(DEPTH, HEADS)):
        raise ZeroDivisionError
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_half_precision_stays() -> None:
    model = stirred(StandIn()).bfloat16()
    with gated(blocks_of(model), heads=torch.ones(DEPTH, HEADS), neurons=torch.ones(DEPTH, HIDDEN)):
        assert model(tokens().bfloat16()).dtype == torch.bfloat16


def test_a_plan_of_another_model_is_refused() -> None:
    wrong = PruningPlan.whole(DEPTH, HEADS, HIDDEN + 1, HEAD_DIM)
    message = 'with 3 blocks of 4 heads x 6 and 21 neurons, but got 3 blocks of 4 x 6 and 20'
    with pytest.raises(CheckpointError, match=message), masked(StandIn(), wrong):
        pass
