"""A block equals a plain computation window by window and head by head."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdplugin.models.backbones.eva_blocks import BlockSize, EvaAttention, EvaBlock, EvaSwiGLU, from_windows, to_windows
from kdplugin.models.backbones.eva_rope import RotaryPositions

DIM, HEAD = 24, 8


def random_(module: torch.nn.Module) -> None:
    """Give every parameter values that matter, norms and biases included."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def block(heads: int = 3, hidden: int = 20, window: int = 4, **settings: object) -> EvaBlock:
    rope = RotaryPositions((window or 6, window or 6), HEAD, 16, interpolated=True)
    size = BlockSize(DIM, heads, HEAD, hidden, window)
    made = EvaBlock(size, rope, **{**dict(qkv_bias=True, drop_path=0.0, with_cp=False), **settings})
    random_(made)
    return made.double()


def plain_attention(attn: EvaAttention, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Attend among tokens [L, C] with matrix products and a loop over heads."""
    outputs = []
    for head in range(attn.num_heads):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        q = tokens @ attn.q_proj.weight[rows].T + attn.q_bias[rows]
        k = tokens @ attn.k_proj.weight[rows].T
        v = tokens @ attn.v_proj.weight[rows].T + attn.v_bias[rows]
        q, k = (attn.rope(one[None, None], grid)[0, 0] for one in (q, k))
        outputs.append((q @ k.T / math.sqrt(HEAD)).softmax(-1) @ v)
    return torch.cat(outputs, dim=-1) @ attn.proj.weight.T + attn.proj.bias


def plain_mlp(mlp: EvaSwiGLU, x: Tensor) -> Tensor:
    gate, value = (x @ layer.weight.T + layer.bias for layer in (mlp.w1, mlp.w2))
    hidden = gate / (1 + (-gate).exp()) * value
    centred = hidden - hidden.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return (normed * mlp.ffn_ln.weight + mlp.ffn_ln.bias) @ mlp.w3.weight.T + mlp.w3.bias


def plain_block(made: EvaBlock, x: Tensor) -> Tensor:
    """Compute one image [H, W, C] window by window; what lies outside of the image is zero after the norm."""
    height, width = x.shape[:2]
    side = made.window or max(height, width)
    normed = F.layer_norm(x, (DIM,), made.norm1.weight, made.norm1.bias, 1e-6)
    attended = torch.empty_like(x)
    for top in range(0, height, side):
        for left in range(0, width, side):
            grid = (side, side) if made.window else (height, width)
            tokens = torch.zeros(*grid, DIM, dtype=x.dtype)
            inside = normed[top : top + side, left : left + side]
            tokens[: inside.shape[0], : inside.shape[1]] = inside
            out = plain_attention(made.attn, tokens.flatten(0, 1), grid).unflatten(0, grid)
            attended[top : top + side, left : left + side] = out[: inside.shape[0], : inside.shape[1]]
    x = x + attended
    return x + plain_mlp(made.mlp, F.layer_norm(x, (DIM,), made.norm2.weight, made.norm2.bias, 1e-6))


@pytest.mark.parametrize('grid', [(4, 4), (8, 12), (6, 5), (3, 9), (1, 1)])
@pytest.mark.parametrize(('window', 'heads'), [(4, 3), (4, 1), (0, 3)])
def test_a_block_is_the_plain_computation(grid: tuple[int, int], window: int, heads: int) -> None:
    made = block(heads, window=window)
    images = torch.randn(2, *grid, DIM, dtype=torch.float64)
    wanted = torch.stack([plain_block(made, image) for image in images])
    assert torch.allclose(made(images), wanted, atol=1e-10)
    assert (wanted - images).abs().max() > 0.1


@pytest.mark.parametrize(('grid', 'windows'), [((40, 40), 9), ((32, 16), 2), ((17, 5), 2)])
def test_windows_there_and_back(grid: tuple[int, int], windows: int) -> None:
    x = torch.randn(2, *grid, 3)
    cut = to_windows(x, 16)
    assert cut.shape == (2 * windows, 16, 16, 3)
    assert torch.equal(from_windows(cut, grid), x)
    assert cut.sum() == pytest.approx(float(x.sum()), abs=1e-3)


def test_windows_lie_row_by_row() -> None:
    grid = torch.arange(24.0).view(1, 4, 6, 1)
    cut = to_windows(grid, 2)[..., 0]
    assert cut[:3].flatten(1).tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert cut[3].flatten().tolist() == [12, 13, 18, 19]


@pytest.mark.parametrize(('window', 'units', 'tokens'), [(4, 2 * 4, 16), (0, 2, 30)])
def test_the_tap_sees_rotated_queries_and_keys(window: int, units: int, tokens: int) -> None:
    made = block(window=window)
    caught: list[tuple[Tensor, Tensor]] = []
    made.attn.qk.register_forward_hook(lambda module, args, output: caught.append(output))
    x = torch.randn(2, 6, 5, DIM, dtype=torch.float64)
    without = block(window=window)(x)
    assert torch.equal(made(x), without)
    ((queries, keys),) = caught
    assert queries.shape == keys.shape == (units, 3, tokens, HEAD)
    inner = made.norm1(x)
    inner = to_windows(inner, window) if window else inner
    grid = inner.shape[1:3]
    q, k = made.attn.q_proj(inner.flatten(1, 2)) + made.attn.q_bias, made.attn.k_proj(inner.flatten(1, 2))
    for tapped, own in ((queries, q), (keys, k)):
        assert torch.allclose(tapped, made.attn.rope(own.unflatten(2, (3, HEAD)).transpose(1, 2), grid))
    assert list(made.attn.qk.state_dict()) == []


def test_the_tap_may_change_what_attention_reads() -> None:
    made = block(window=0)
    x = torch.randn(1, 3, 3, DIM, dtype=torch.float64)
    before = made(x)
    made.attn.qk.register_forward_hook(lambda module, args, output: (output[0] * 0, output[1]))
    uniform = made.attn.v_proj(made.norm1(x)).mean((1, 2)) + made.attn.v_bias
    wanted = made.attn.proj(uniform).expand(3, 3, DIM)[None]
    assert torch.allclose(made._attend(made.norm1(x)), wanted)
    assert not torch.allclose(made(x), before)


@pytest.mark.parametrize('window', [4, 0])
def test_fewer_heads_are_the_others_silenced(window: int) -> None:
    """Slices of heads 0 and 2 compute what all three do when head 1 reaches proj as zeros; the scale stays 8^-0.5."""
    whole, pruned = block(3, window=window), block(2, window=window)
    rows = [*range(8), *range(16, 24)]
    pruned.load_state_dict(whole.state_dict() | {
        **{f'attn.{part}_proj.weight': whole.attn.get_parameter(f'{part}_proj.weight')[rows] for part in 'qkv'},
        **{f'attn.{part}_bias': whole.attn.get_parameter(f'{part}_bias')[rows] for part in 'qv'},
        'attn.proj.weight': whole.attn.proj.weight[:, rows],
    })  # fmt: skip
    mask = torch.zeros(24, dtype=torch.float64)
    mask[rows] = 1
    whole.attn.proj.register_forward_pre_hook(lambda module, args: (args[0] * mask,))
    x = torch.randn(2, 6, 5, DIM, dtype=torch.float64)
    assert whole.attn.scale == pruned.attn.scale == 8**-0.5
    assert torch.allclose(pruned(x), whole(x), atol=1e-12)


def test_there_is_no_bias_of_k_and_none_of_q_and_v_when_not_asked() -> None:
    names = {name for name, _ in block().attn.named_parameters()}
    bare = {name for name, _ in block(qkv_bias=False).attn.named_parameters()}
    assert names - bare == {'q_bias', 'v_bias'}
    assert not any('k' in name and 'bias' in name for name in names)


def test_a_dropped_path_leaves_the_image_as_it_was() -> None:
    made = block(window=4, drop_path=0.5).train()
    x = torch.randn(64, 4, 4, DIM, dtype=torch.float64)
    torch.manual_seed(1)
    same = (made(x) == x).flatten(1).all(1)
    assert 4 <= same.sum() <= 32  # a quarter of 64 is expected to lose both branches
    assert torch.equal(made.eval()(x), made(x))


@pytest.mark.parametrize('drop_path', [0.0, 0.5])
def test_checkpointing_changes_no_gradient_and_no_tap(drop_path: float) -> None:
    gradients = []
    for with_cp in (False, True):
        made = block(window=4, drop_path=drop_path, with_cp=with_cp).train()
        caught: list[Tensor] = []
        handle = made.attn.qk.register_forward_hook(lambda module, args, output, to=caught: to.extend(output))
        torch.manual_seed(2)
        x = torch.randn(4, 6, 5, DIM, dtype=torch.float64, requires_grad=True)
        output = made(x)
        handle.remove()
        (output.square().sum() + caught[0].mul(caught[1]).sum()).backward()
        gradients.append([x.grad, *(parameter.grad for parameter in made.parameters())])
    assert len(gradients[0]) == len(gradients[1]) > 15
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(*gradients, strict=True))


def test_checkpointing_keeps_fewer_tensors() -> None:
    kept = []
    for with_cp in (False, True):
        made = block(with_cp=with_cp).train()
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, to=saved: to.append(tensor) or tensor, lambda t: t
        ):
            made(torch.randn(1, 4, 4, DIM, dtype=torch.float64, requires_grad=True))
        kept.append(len(saved))
    assert kept[1] < kept[0] / 5
