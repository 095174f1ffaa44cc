"""Fitted weights: exact where the kept units can stand in for the others, better than slices elsewhere."""

from __future__ import annotations

import pytest
import torch
from eva_stand_in import DEPTH, HEAD_DIM, HEADS, HIDDEN, StandIn, stirred, tokens, trained
from torch import Tensor

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.compensation import PARTS, Compensated, collect, compensate
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import prune_state

BATCHES = [tokens(8, seed=seed) for seed in range(20, 24)]
HALF = PruningPlan(((0, 1),) * DEPTH, (tuple(range(HIDDEN // 2)),) * DEPTH, HEADS, HIDDEN, HEAD_DIM)
ONE_BLOCK = HALF.replaced(
    heads=((0, 1), *((0, 1, 2, 3),) * 2), neurons=(tuple(range(10)), *(tuple(range(HIDDEN)),) * 2)
)


def doubled() -> StandIn:
    """Return a model whose heads 2, 3 and neurons 10.. repeat heads 0, 1 and neurons ..9, but for what reads them."""
    model = stirred(StandIn())
    with torch.no_grad():
        for block in model.blocks:
            for name in ('q_proj.weight', 'k_proj.weight', 'v_proj.weight', 'q_bias', 'v_bias'):
                value = block.attn.get_parameter(name)
                value[2 * HEAD_DIM :] = value[: 2 * HEAD_DIM]
            for name in ('w1.weight', 'w1.bias', 'w2.weight', 'w2.bias'):
                value = block.mlp.get_parameter(name)
                value[HIDDEN // 2 :] = value[: HIDDEN // 2]
    return model


def fitted(model: StandIn, plan: PruningPlan, parts: tuple[str, ...], ridge: float = 1e-8) -> Compensated:
    sums = collect(Calibration(model, BATCHES), plan)
    return compensate(plan, prune_state(plan, model), sums, parts=parts, ridge=ridge)


@torch.no_grad()
def difference(model: StandIn, plan: PruningPlan, state: dict[str, Tensor]) -> float:
    student = StandIn(plan.head_counts, plan.neuron_counts).eval()
    student.load_state_dict(state, strict=True)
    x = tokens(8, seed=77)
    return float((student(x) - model(x)).square().mean())


def test_units_that_others_repeat_are_no_loss() -> None:
    model = doubled()
    assert difference(model, HALF, prune_state(HALF, model)) > 0.1
    made = fitted(model, HALF, ('proj', 'w3'))
    assert difference(model, HALF, made.state) < 1e-8
    assert list(made.errors) == [f'blocks.{n}.{name}' for n in range(DEPTH) for name in ('attn.proj', 'mlp.w3')]
    assert all(before > 0.01 and after < 1e-6 for before, after in made.errors.values())


def test_what_each_part_brings() -> None:
    model = trained()
    sliced = difference(model, HALF, prune_state(HALF, model))
    made = {parts: fitted(model, HALF, parts, 1e-3) for parts in (('w3',), ('ffn_ln',), ('proj', 'w3'), PARTS)}
    found = {parts: difference(model, HALF, one.state) for parts, one in made.items()}
    assert all(after < before for one in made.values() for before, after in one.errors.values())
    assert all(value < sliced for value in found.values())
    assert found[('proj', 'w3')] < found[('w3',)] < found[('ffn_ln',)]
    assert found[PARTS] == pytest.approx(found[('proj', 'w3')], rel=0.05)


def test_the_errors_are_those_of_the_block() -> None:
    model, x = trained(), torch.cat(BATCHES)
    made = fitted(model, ONE_BLOCK, ('proj', 'w3'), 1e-3)
    student = StandIn(ONE_BLOCK.head_counts, ONE_BLOCK.neuron_counts).eval()
    for state, which in ((prune_state(ONE_BLOCK, model), 0), (made.state, 1)):
        student.load_state_dict(state, strict=True)
        with torch.no_grad():
            norm = model.blocks[0].norm1(x + model.pos_embed)
            wanted, given = (one.blocks[0].attn(norm).double() for one in (model, student))
        spread = (wanted - wanted.mean((0, 1))).square().sum()
        expected = float((given - wanted).square().sum() / spread)
        assert made.errors['blocks.0.attn.proj'][which] == pytest.approx(expected, rel=1e-3)


def test_the_norm_alone_comes_nearer_to_the_whole_norm() -> None:
    model = trained()
    made = fitted(model, ONE_BLOCK, ('ffn_ln',))
    seen: list[Tensor] = []
    handle = model.blocks[0].mlp.ffn_ln.register_forward_hook(lambda _, inputs, output: seen.extend((*inputs, output)))
    with torch.no_grad():
        model(torch.cat(BATCHES))
    handle.remove()
    hidden, whole = seen[0][..., :10], seen[1][..., :10]
    names = [f'blocks.0.mlp.ffn_ln.{leaf}' for leaf in ('weight', 'bias')]
    before, after = (
        float(
            (torch.nn.functional.layer_norm(hidden, (10,), *(s[name] for name in names), eps=1e-6) - whole)
            .square()
            .mean()
        )
        for s in (prune_state(ONE_BLOCK, model), made.state)
    )
    assert after < 0.7 * before
    assert list(made.errors) == ['blocks.0.mlp.w3']


def test_blocks_that_lose_nothing_stay() -> None:
    model = trained()
    made = fitted(model, ONE_BLOCK, PARTS)
    state = model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in made.state.items() if '.0.' not in name)
    assert made.state['blocks.0.attn.proj.weight'].dtype == torch.float32


def test_padding_does_not_count() -> None:
    """Tokens that are zero in front of attention are windows' padding."""
    model = trained()
    plan = HALF.replaced(neurons=(tuple(range(HIDDEN)),) * DEPTH)

    def padded(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.cat([inputs[0], torch.zeros_like(inputs[0][:, :2])], 1),)

    def cut(_: torch.nn.Module, __: object, output: Tensor) -> Tensor:
        return output[:, :-2]

    for block in model.blocks:
        block.attn.register_forward_pre_hook(padded)
        block.attn.register_forward_hook(cut)
    sums = collect(Calibration(model, BATCHES[:1]), plan)
    assert sums[0].proj is not None
    assert sums[0].proj.count == BATCHES[0].shape[0] * BATCHES[0].shape[1]


def test_mistakes() -> None:
    model = stirred(StandIn())
    with pytest.raises(ConfigError, match=r"Expected parts of proj, w3, ffn_ln but got w33. Did you mean 'w3'"):
        compensate(HALF, {}, [], parts=('w33',))
    with pytest.raises(ConfigError, match='Expected parts of proj, w3, ffn_ln but got nothing'):
        compensate(HALF, {}, [], parts=())
    with pytest.raises(ConfigError, match='Expected a ridge above 0 but got 0'):
        compensate(HALF, {}, [], ridge=0)
    with pytest.raises(CheckpointError, match='Expected the model of the plan, with 3 blocks of 4 heads x 7'):
        collect(Calibration(model, BATCHES), HALF.replaced(head_dim=7))
