"""AttentionKD: rows of attention recomputed from queries and keys, against whole maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orion_models as orion
import pytest
import torch
from engine_fixtures import build, detection_batch, teacher_of
from torch import Tensor, nn

from kdplugin.distill.methods import AttentionKD, StepContext
from kdplugin.distill.methods.attention_kd import attention_scores
from kdplugin.distill.probe import ProbeResult
from kdplugin.errors import ConfigError, TapError
from kdplugin.pruning.plan import PruningPlan

TAP = 'backbone.blocks.{}.attn.qk'


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context(ours: list[list[Tensor]], theirs: list[list[Tensor]]) -> StepContext:
    taps = [TAP.format(number) for number in range(len(ours))]
    sides = (dict(zip(taps, side, strict=True)) for side in (ours, theirs))
    return StepContext(*sides, nn.Identity(), None)  # type: ignore[arg-type]


def whole_map(query: Tensor, key: Tensor) -> Tensor:
    return (torch.einsum('nald,namd->nalm', query, key) / query.shape[-1] ** 0.5).softmax(-1)


def test_it_is_the_divergence_of_whole_maps() -> None:
    """Two blocks, one of them in windows, all tokens, the student's heads being 0 and 2 of the teacher's three."""
    ours = [
        [double(1, 2, 9, 4, seed=1), double(1, 2, 9, 4, seed=2)],
        [double(4, 2, 4, 4, seed=3), double(4, 2, 4, 4, seed=4)],
    ]
    theirs = [
        [double(1, 3, 9, 4, seed=5), double(1, 3, 9, 4, seed=6)],
        [double(4, 3, 4, 4, seed=7), double(4, 3, 4, 4, seed=8)],
    ]
    expected = []
    for own, other in zip(ours, theirs, strict=True):
        student, teacher = whole_map(*own), whole_map(*other)[:, [0, 2]]
        expected.append((teacher * (teacher.log() - student.log())).sum(-1).mean())
    method = AttentionKD('p', blocks=[0, 1], heads=[[0, 2], [0, 2]], queries=None)
    value = method.distance(context(ours, theirs))
    assert float(value) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-12)


def test_equal_heads_are_at_distance_0_and_order_counts() -> None:
    query, key = double(2, 4, 16, 8, seed=1), double(2, 4, 16, 8, seed=2)
    kept = [[query[:, [3, 1]], key[:, [3, 1]]]]
    assert float(AttentionKD('p', blocks=[0], heads=[[3, 1]]).distance(context(kept, [[query, key]]))) == pytest.approx(
        0, abs=1e-12
    )
    assert float(AttentionKD('p', blocks=[0], heads=[[1, 3]]).distance(context(kept, [[query, key]]))) > 0.1


def test_fewer_queries_are_rows_of_the_whole() -> None:
    query, key = double(2, 3, 10, 8, seed=1), double(2, 3, 10, 8, seed=2)
    some = attention_scores(query, key, queries=4, heads=[2])
    torch.testing.assert_close(some, attention_scores(query, key)[:, [2]][:, :, [0, 2, 5, 7]])
    assert torch.equal(attention_scores(query, key, queries=99), attention_scores(query, key))
    torch.testing.assert_close(attention_scores(query, key, scale=1.0) / 8**0.5, attention_scores(query, key))


def test_the_gradient_is_the_students_alone() -> None:
    query, key = double(1, 2, 5, 4, seed=1).requires_grad_(), double(1, 2, 5, 4, seed=2).requires_grad_()
    theirs = [double(1, 2, 5, 4, seed=3), double(1, 2, 5, 4, seed=4)]

    def value(*ours: Tensor) -> Tensor:
        return AttentionKD('p', blocks=[0], queries=3).distance(context([list(ours)], [theirs]))

    torch.autograd.gradcheck(value, (query, key))


@pytest.fixture(scope='module')
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return orion.save_teacher(tmp_path_factory.mktemp('teacher'))


def learner(file: str, pair: dict[str, Any], heads: int = 2) -> nn.Module:
    teacher = dict(model=orion.teacher(), checkpoint=file)
    pairs = dict(p=dict(type='kdplugin.AttentionKD', **pair))
    return build(dict(type='kdplugin.Distiller', student=orion.student(file, heads), teacher=teacher, pairs=pairs))


def test_a_pruned_students_heads_look_at_the_heads_that_they_were(file: str, tmp_path: Path) -> None:
    plan = PruningPlan(((1, 3), (0, 2)), (tuple(range(85)),) * 2, num_heads=4, hidden=85, head_dim=8)
    plan.write(tmp_path / 'plan.json')
    model = learner(file, dict(blocks=[0, 1], plan=str(tmp_path / 'plan.json'), queries=16)).train()
    teacher = teacher_of(model)
    with torch.no_grad():
        for name in ('pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias'):
            model.backbone.get_parameter(name).copy_(teacher.backbone.get_parameter(name))
        for kind in ('weight', 'bias'):
            getattr(model.backbone.blocks[0].norm1, kind).copy_(getattr(teacher.backbone.blocks[0].norm1, kind))
        ours, theirs = model.backbone.blocks[0].attn, teacher.backbone.blocks[0].attn
        for projection in ('q_proj', 'k_proj'):
            getattr(ours, projection).weight.copy_(getattr(theirs, projection).weight[plan.rows(0)])
        ours.q_bias.copy_(theirs.q_bias[plan.rows(0)])
    losses = model(**detection_batch(), mode='loss')
    alone = learner(file, dict(blocks=[0], heads=[[1, 3]], queries=16)).train()
    alone.backbone.load_state_dict(model.backbone.state_dict())
    first = alone(**detection_batch(), mode='loss')['kd_p_raw']
    assert float(first) == pytest.approx(0, abs=1e-6)
    assert float(losses['kd_p_raw']) > 1e-3
    losses['loss_kd_p'].backward()
    assert model.backbone.blocks[1].attn.q_proj.weight.grad.abs().max() > 0


def test_what_does_not_fit_is_told(file: str, tmp_path: Path) -> None:
    with pytest.raises(
        TapError, match=r"Expected the 2 heads of 'backbone.blocks.0.attn.qk' to look at heads \[0, 1, 2, 3\]"
    ):
        learner(file, dict(blocks=[0]))
    with pytest.raises(TapError, match=r'to look at heads .*4'):
        learner(file, dict(blocks=[0], heads=[[0, 4]]))
    with pytest.raises(TapError, match=r"to see queries and keys but 'backbone.blocks.0' gives"):
        learner(file, dict(blocks=[0], path='backbone.blocks.{}'))
    with pytest.raises(ConfigError, match='Expected a teacher block for each block'):
        AttentionKD('p', blocks=[])
    with pytest.raises(ConfigError, match='Expected a teacher block for each block'):
        AttentionKD('p', blocks=[0, 1], teacher_blocks=[1])
    with pytest.raises(ConfigError, match='Expected queries >= 1'):
        AttentionKD('p', blocks=[0], queries=0)
    with pytest.raises(ConfigError, match='Expected either plan or heads'):
        AttentionKD('p', blocks=[0], plan='plan.json', heads=[[0]])
    with pytest.raises(ConfigError, match=r'Expected the heads of each of 2 blocks .* but got 1'):
        AttentionKD('p', blocks=[0, 1], heads=[[0]])
    PruningPlan.whole(2, 4, 85, 8).write(tmp_path / 'plan.json')
    with pytest.raises(ConfigError, match=r'Expected blocks 0 to 1 of the plan .* but got \[2\]'):
        AttentionKD('p', blocks=[2], plan=str(tmp_path / 'plan.json'))


def test_other_blocks_of_the_teacher_are_tapped() -> None:
    method = AttentionKD('p', blocks=[0, 1], teacher_blocks=[2, 5], teacher_path='img.blocks.{}.qk')
    assert method.student_taps == (TAP.format(0), TAP.format(1))
    assert method.teacher_taps == ('img.blocks.2.qk', 'img.blocks.5.qk')
    found = ProbeResult(
        'tensor', {tap: [(1, 2, 4, 8)] * 2 for tap in (*method.student_taps, *method.teacher_taps)}, frozenset()
    )
    method.prepare(found, found, nn.Identity(), None)  # type: ignore[arg-type]
