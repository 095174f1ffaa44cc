"""What surgery slices, and that the pruned model is the masked one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from eva_stand_in import DEPTH, DIM, HEAD_DIM, HEADS, HIDDEN, Detector, StandIn, stirred, tokens, trained
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.pruning.gates import masked
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.surgery import projection_plan, prune_state, restore_heads
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import ProjectionPlan

ALL_HEADS, ALL_NEURONS = tuple(range(HEADS)), tuple(range(HIDDEN))
SOME_HEADS = ((0, 2), (1, 2, 3), (3,))
SOME_NEURONS = (tuple(range(0, HIDDEN, 2)), (1, 5, 6, 7, 19), tuple(range(HIDDEN)))


def plan(heads: object = SOME_HEADS, neurons: object = SOME_NEURONS, prefix: str = '') -> PruningPlan:
    return PruningPlan(heads, neurons, HEADS, HIDDEN, HEAD_DIM, prefix, {'scorer': 'by hand'})  # type: ignore[arg-type]


HEADS_ALONE = plan(neurons=(ALL_NEURONS,) * DEPTH)
NEURONS_ALONE = plan(heads=(ALL_HEADS,) * DEPTH)
PLANS = [HEADS_ALONE, NEURONS_ALONE, plan()]
NAMES = ['heads', 'neurons', 'both']


def pruned(teacher: nn.Module, made: PruningPlan) -> StandIn:
    """Return the model that a plan makes, built at its size."""
    student = StandIn(made.head_counts, made.neuron_counts)
    student.load_state_dict(prune_state(made, teacher), strict=True)
    return student.eval()


@pytest.mark.parametrize('teacher', [lambda: stirred(StandIn()), trained], ids=['random', 'trained'])
@pytest.mark.parametrize('made', PLANS, ids=NAMES)
@torch.no_grad()
def test_the_sliced_student_is_the_masked_teacher(teacher: Callable[[], nn.Module], made: PruningPlan) -> None:
    model, x = teacher(), tokens()
    with masked(model, made):
        expected = model(x)
    found = pruned(model, made)(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - model(x)).abs().amax() > 1e-2


@torch.no_grad()
def test_slices_by_hand() -> None:
    teacher = stirred(StandIn()).state_dict()
    state = prune_state(plan(), teacher)
    rows, neurons = [*range(6, 24)], list(SOME_NEURONS[1])
    block = 'blocks.1.'
    assert list(state) == list(teacher)
    for name in ('attn.q_proj.weight', 'attn.k_proj.weight', 'attn.v_proj.weight', 'attn.q_bias', 'attn.v_bias'):
        assert torch.equal(state[block + name], teacher[block + name][rows])
    assert torch.equal(state[f'{block}attn.proj.weight'], teacher[f'{block}attn.proj.weight'][:, rows])
    for name in ('w1.weight', 'w1.bias', 'w2.weight', 'w2.bias', 'ffn_ln.weight', 'ffn_ln.bias'):
        assert torch.equal(state[f'{block}mlp.{name}'], teacher[f'{block}mlp.{name}'][neurons])
    assert torch.equal(state[f'{block}mlp.w3.weight'], teacher[f'{block}mlp.w3.weight'][:, neurons])
    for name in ('attn.proj.bias', 'mlp.w3.bias', 'norm1.weight'):
        assert torch.equal(state[block + name], teacher[block + name])


def test_a_file_with_a_prefix_keeps_its_other_tensors(tmp_path: Path) -> None:
    model = stirred(Detector())
    file = tmp_path / 'teacher.pth'
    torch.save({'state_dict': model.state_dict()}, file)
    state = prune_state(plan(prefix='backbone.'), str(file))
    assert torch.equal(state['head.weight'], model.head.weight)
    assert state['backbone.blocks.2.attn.proj.weight'].shape == (DIM, HEAD_DIM)
    Detector(StandIn(plan().head_counts, plan().neuron_counts)).load_state_dict(state, strict=True)


def test_types_stay() -> None:
    state = prune_state(plan(), stirred(StandIn()).half())
    assert {value.dtype for value in state.values()} == {torch.float16}


@pytest.mark.parametrize('made', PLANS, ids=NAMES)
def test_its_projection_plan_goes_through_json_and_fills_the_student(made: PruningPlan) -> None:
    teacher = stirred(Detector())
    student = StandIn(made.head_counts, made.neuron_counts)
    made = made.replaced(prefix='backbone.')
    projection = ProjectionPlan.from_json(projection_plan(made, teacher, student).to_json())
    assert [entry.target for entry in projection.entries] == list(student.state_dict())
    assert set(projection.unused) == {'head.weight', 'head.bias'}
    assert projection.settings == {'pruning': {'scorer': 'by hand'}}
    tensors = apply_plan(projection, teacher).tensors
    expected = prune_state(made, teacher)
    assert all(torch.equal(value, expected[f'backbone.{name}']) for name, value in tensors.items())
    assert {entry.kind for entry in projection.entries} == {'renamed', 'projected'}


def test_a_source_without_the_prefix_is_taken_too() -> None:
    made, teacher = plan(prefix='img_backbone.'), stirred(StandIn())
    assert all(map(torch.equal, prune_state(made, teacher).values(), prune_state(plan(), teacher).values()))


class WithTable(StandIn):
    """A model with a rotary table of its own grid, as a buffer."""

    def __init__(self, length: int, heads: tuple[int, ...], hidden: tuple[int, ...]) -> None:
        super().__init__(heads, hidden)
        self.rope_win = nn.Module()
        self.rope_win.register_buffer('freqs_cos', torch.ones(length, HEAD_DIM))


def test_rotary_tables_of_another_grid_are_left_to_the_model() -> None:
    teacher = WithTable(4, (HEADS,) * DEPTH, (HIDDEN,) * DEPTH)
    for length, kind in ((4, 'exact'), (9, 'random')):
        student = WithTable(length, plan().head_counts, plan().neuron_counts)
        assert projection_plan(plan(), teacher, student)['rope_win.freqs_cos'].kind == kind
    student = WithTable(4, plan().head_counts, plan().neuron_counts)
    entry = projection_plan(plan(), stirred(StandIn()), student)['rope_win.freqs_cos']
    assert (entry.kind, entry.reason) == ('random', 'the model computes it')


@torch.no_grad()
def test_restored_heads_give_the_same_outputs() -> None:
    teacher, x = trained(), tokens()
    student = pruned(teacher, HEADS_ALONE)
    full = StandIn().eval()
    full.load_state_dict(restore_heads(HEADS_ALONE, student.state_dict()), strict=True)
    torch.testing.assert_close(full(x), student(x), rtol=0, atol=1e-5)
    weight = full.blocks[1].attn.v_proj.weight
    assert weight[:HEAD_DIM].count_nonzero() == 0
    assert torch.equal(weight[HEAD_DIM:], teacher.blocks[1].attn.v_proj.weight[HEAD_DIM:])
    again = prune_state(HEADS_ALONE, full)
    assert all(torch.equal(again[name], value) for name, value in student.state_dict().items())


def test_restored_heads_of_a_whole_detector_and_of_large_half_precision() -> None:
    student = Detector(StandIn(HEADS_ALONE.head_counts, HEADS_ALONE.neuron_counts)).half()
    state = restore_heads(HEADS_ALONE.replaced(prefix='img_backbone.'), student.state_dict())
    Detector().load_state_dict(state, strict=True)
    assert state['backbone.blocks.0.attn.q_bias'].dtype == torch.float16


def test_a_pruned_ffn_cannot_be_restored() -> None:
    with pytest.raises(CheckpointError, match=r'block 0 keeps 5 of 20 neurons. ffn_ln normalises over the kept'):
        restore_heads(plan(), {})


def wrong_state(name: str, value: Tensor | None) -> dict[str, Tensor]:
    state = dict(stirred(StandIn()).state_dict())
    if value is None:
        del state[name]
    else:
        state[name] = value
    return state


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('blocks.1.attn.q_bias', torch.zeros(5), 'Expected 24 along axis 0 of blocks.1.attn.q_bias .* but got 5'),
        ('blocks.0.mlp.w3.weight', torch.zeros(DIM, 7), 'Expected 20 along axis 1 of blocks.0.mlp.w3.weight'),
        ('blocks.2.attn.q_proj.weight', None, 'Expected the 3 blocks of the plan but got 2'),
    ],
)
def test_another_teacher_is_refused(name: str, value: Tensor | None, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        prune_state(plan(), wrong_state(name, value))


def test_another_student_is_refused() -> None:
    teacher = stirred(StandIn())
    with pytest.raises(CheckpointError, match=r'Expected blocks.0.attn.q_bias of shape \(12,\), by the plan, but'):
        projection_plan(plan(), teacher, StandIn())
    with pytest.raises(CheckpointError, match=r'Expected backbone.pos_embed in .* is missing'):
        projection_plan(plan(), teacher, Detector())
    with pytest.raises(CheckpointError, match=r'Expected 12 along axis 0 of .*, 2 heads x 6, but got 24'):
        restore_heads(HEADS_ALONE, teacher.state_dict())
