"""A plan for a model: equal shapes as they are, other widths projected, layers chosen."""

from __future__ import annotations

import pytest
import torch
from timm.models import VisionTransformer
from torch import nn

from kdplugin.weights.apply import apply_plan
from kdplugin.weights.planning import make_plan


def vit(width: int, depth: int, heads: int, classes: int = 10) -> nn.Module:
    torch.manual_seed(width + depth)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=width, depth=depth, num_heads=heads, num_classes=classes
    )


HEADS = {'source': 6, 'target': 3}


@pytest.mark.parametrize('method', ['truncate', 'average', 'svd'])
def test_a_narrower_and_shallower_student_is_filled_whole(method: str) -> None:
    teacher, student = vit(48, 6, 6), vit(24, 3, 3)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    plan = make_plan(teacher, student, method=method, heads=HEADS)
    made = apply_plan(plan, teacher).tensors
    student.load_state_dict(made, strict=True)
    assert {entry.kind for entry in plan.entries} <= {'projected', 'exact'}
    assert plan['blocks.1.mlp.fc1.weight'].sources[0] == 'blocks.3.mlp.fc1.weight'
    again = apply_plan(make_plan(teacher, student, method=method, heads=HEADS), teacher).tensors
    assert all(torch.equal(value, again[name]) for name, value in made.items())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_equal_shapes_stay_exact_and_another_class_count_is_refused() -> None:
    plan = make_plan(vit(24, 3, 3), vit(24, 3, 3, classes=4))
    left = {entry.target: entry.kind for entry in plan.entries if entry.kind != 'exact'}
    assert left == {'head.weight': 'refused', 'head.bias': 'refused'}


@pytest.mark.parametrize(
    ('layers', 'taken'),
    [('uniform', [0, 3, 5]), ('first', [0, 1, 2]), ('last', [3, 4, 5]), ([0, 2, 4], [0, 2, 4])],
)
def test_layers_are_chosen(layers: str | list[int], taken: list[int]) -> None:
    plan = make_plan(vit(24, 6, 3), vit(24, 3, 3), layers=layers)
    assert [plan[f'blocks.{i}.norm1.weight'].sources[0] for i in range(3)] == [
        f'blocks.{i}.norm1.weight' for i in taken
    ]


def test_layers_by_similarity_drop_the_copy() -> None:
    teacher = vit(24, 4, 3)
    teacher.blocks[2].load_state_dict(teacher.blocks[1].state_dict())  # type: ignore[operator, union-attr, index]
    plan = make_plan(teacher, vit(24, 3, 3), layers='similarity')
    assert [plan[f'blocks.{i}.attn.proj.weight'].sources[0][7] for i in range(3)] == ['0', '1', '3']
