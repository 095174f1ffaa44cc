"""The pruned EVA-ViT is built at its size from numbers or a plan, and refuses what contradicts itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.models import EVAViT, EVAViTStudent
from kdplugin.models.backbones.eva_student import kept_counts
from kdplugin.pruning.plan import PruningPlan
from kdplugin.registry import MODELS

TEACHER: dict[str, Any] = dict(img_size=64, embed_dim=48, depth=3, window_size=3, drop_path_rate=0.0)
SIZES = dict(TEACHER, head_dim=12)
PLAN = PruningPlan(
    heads=((0, 2), (1,), (0, 1, 3)), neurons=((0, 5), tuple(range(128)), (7,)), num_heads=4, hidden=128, head_dim=12
)
HALF = dict(heads=[[*range(8)]] * 24, neurons=[[*range(1365)]] * 24, num_heads=16, hidden=2730, head_dim=64)


def sizes_of(student: EVAViT) -> list[tuple[int, int, int]]:
    """Return heads, rows of q and hidden neurons by block."""
    return [
        (block.attn.num_heads, block.attn.q_proj.out_features, block.mlp.w1.out_features) for block in student.blocks
    ]


@pytest.mark.parametrize(
    ('settings', 'parameters'),
    [
        (dict(), 303_388_608),
        (dict(num_heads=8), 253_032_384),
        (dict(num_heads=8, ffn_keep=0.5), 152_262_624),
        (dict(num_heads=[8] * 24, ffn_keep=[1365] * 24), 152_262_624),
        (dict(plan=HALF), 152_262_624),
    ],
)  # fmt: skip
def test_orions_sizes(settings: dict[str, Any], parameters: int) -> None:
    with torch.device('meta'):
        student = MODELS.build(dict(type='kdplugin.EVAViTStudent', **settings))
        level = student(torch.empty(1, 3, 320, 320))[0]
    assert sum(parameter.numel() for parameter in student.parameters()) == parameters
    assert len(student.state_dict()) == 511
    assert level.shape == (1, 1024, 20, 20)
    assert {block.attn.scale for block in student.blocks} == {64**-0.5}


def test_blocks_of_different_sizes_compute_and_train() -> None:
    student = EVAViTStudent(num_heads=[2, 1, 4], ffn_keep=[0.5, 5, 1.0], **SIZES)
    assert sizes_of(student) == [(2, 24, 64), (1, 12, 5), (4, 48, 128)]
    assert [block.attn.scale for block in student.blocks] == [12**-0.5] * 3
    (level,) = student(torch.randn(2, 3, 64, 96))
    assert level.shape == (2, 48, 4, 6)
    level.square().sum().backward()
    assert [name for name, parameter in student.named_parameters() if not parameter.grad.any()] == []


def test_nothing_pruned_is_the_teacher() -> None:
    torch.manual_seed(0)
    teacher = EVAViT(num_heads=4, **TEACHER).eval()
    student = EVAViTStudent(**SIZES).eval()
    student.load_state_dict(teacher.state_dict(), strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(student(images)[0], teacher(images)[0])


@pytest.mark.parametrize('form', ['file', 'content', 'json', 'object'])
def test_a_plan_gives_the_sizes(form: str, tmp_path: Path) -> None:
    PLAN.write(tmp_path / 'plan.json')
    forms = dict(
        file=str(tmp_path / 'plan.json'),
        content=dict(heads=PLAN.heads, neurons=PLAN.neurons, num_heads=4, hidden=128, head_dim=12),
        json=json.loads(PLAN.to_json()),
        object=PLAN,
    )
    student = MODELS.build(dict(type='kdplugin.EVAViTStudent', plan=forms[form], **TEACHER))
    assert sizes_of(student) == [(2, 24, 2), (1, 12, 128), (3, 36, 1)]
    assert student.plan == PLAN


def test_numbers_may_repeat_the_plan() -> None:
    student = EVAViTStudent(num_heads=[2, 1, 3], ffn_keep=[2, 1.0, 1], plan=PLAN, **SIZES)
    assert sizes_of(student) == sizes_of(EVAViTStudent(plan=PLAN, **TEACHER))


def test_counts_and_parts() -> None:
    assert kept_counts(0.25, 2, 16, 'num_heads') == (4, 4)
    assert kept_counts(4, 2, 16, 'num_heads') == (4, 4)
    assert kept_counts([1, 1.0], 2, 16, 'num_heads') == (1, 16)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(num_heads=0), 'Expected num_heads of at least 1 but got 0 for block 0'),
        (dict(num_heads=5), 'Expected num_heads of at most 4 but got 5 for block 0. Keep no more than all'),
        (dict(num_heads=[2, 2]), 'Expected num_heads for each of 3 blocks but got 2 values'),
        (dict(ffn_keep=0.0), 'Expected ffn_keep of at least 1 but got 0 for block 0'),
        (dict(ffn_keep=[0.5, 1.5, 1]), 'Expected ffn_keep of at most 128 but got 1.5 for block 1'),
        (dict(ffn_keep=[0.5]), 'Expected ffn_keep for each of 3 blocks but got 1 values'),
        (dict(plan=PLAN, num_heads=2), r'num_heads as in the plan, 1 in block 1, but got 2. Leave num_heads to'),
        (dict(plan=PLAN, ffn_keep=2), r'ffn_keep as in the plan, 128 in block 1, but got 2. Leave ffn_keep to'),
        (dict(plan=PLAN, head_dim=16), 'plan for a teacher with num_heads 3 but got one for num_heads 4'),
        (dict(plan=PLAN, depth=2), 'plan for a teacher with depth 2 but got one for depth 3'),
        (dict(plan=PLAN, mlp_ratio=4), 'plan for a teacher with hidden 192 but got one for hidden 128'),
        (dict(head_dim=20), "head_dim that divides embed_dim 48 but got 20. Give the teacher's"),
    ],
)
def test_contradictions_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EVAViTStudent(**SIZES | settings)


def test_a_plan_that_is_not_there_or_no_plan_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r'Expected a pruning plan but .*nowhere\.json does not exist'):
        EVAViTStudent(plan=tmp_path / 'nowhere.json', **SIZES)
    with pytest.raises(CheckpointError, match=r"plan=dict\(\.\.\.\) but 'head' is unknown\. Did you mean 'heads'"):
        EVAViTStudent(plan=dict(head=PLAN.heads), **SIZES)
    with pytest.raises(CheckpointError, match=r"plan=dict\(\.\.\.\) but 'neurons' is missing"):
        EVAViTStudent(plan=dict(heads=PLAN.heads, num_heads=4, hidden=128, head_dim=12), **SIZES)
