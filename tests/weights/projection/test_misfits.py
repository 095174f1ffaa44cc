"""What no projection bridges is refused by name, and the rest goes on."""

from __future__ import annotations

import pytest
import torch
from small_nets import same_names
from torch import Tensor

from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.projection.axis_groups import with_projection


def plan_of(shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]], **tensors: Tensor) -> ProjectionPlan:
    source = {name: torch.empty(old) for name, (old, _) in shapes.items()}
    target = {name: torch.empty(new) for name, (_, new) in shapes.items()}
    for name, value in tensors.items():
        source[name], target[name] = value, value[: len(value) // 2]
    return with_projection(same_names(source, target), source, method='truncate')


def test_other_classes_are_refused_and_their_input_is_not_needed() -> None:
    plan = plan_of(
        {'conv.weight': ((8, 3, 3, 3), (4, 3, 3, 3)), 'fc.weight': ((10, 8), (5, 4)), 'fc.bias': ((10,), (5,))}
    )
    assert [entry.kind for entry in plan.entries] == ['projected', 'refused', 'refused']
    assert plan['fc.bias'].reason == '10 outputs for 5: none stands for another'
    assert plan['fc.bias'].alternatives == ('fc.bias',)


def test_a_layer_that_is_read_is_no_output() -> None:
    plan = plan_of({
        'classifier.0.weight': ((8, 6), (4, 3)), 'classifier.3.weight': ((8, 8), (4, 4)),
        'classifier.6.weight': ((10, 8), (5, 4)), 'conv_seg.weight': ((9, 8, 1, 1), (9, 4, 1, 1)),
    })  # fmt: skip
    assert [entry.kind for entry in plan.entries] == ['projected', 'projected', 'refused', 'projected']


def test_the_last_loaded_layer_of_a_list_is_no_output_if_the_list_goes_on() -> None:
    source = {'classifier.0.weight': torch.empty(8, 6)}
    target = {'classifier.0.weight': torch.empty(4, 3), 'classifier.3.weight': torch.empty(7, 4)}
    plan = with_projection(same_names(source, target), source, method='truncate')
    assert [entry.kind for entry in plan.entries] == ['projected', 'random']


@pytest.mark.parametrize(
    ('name', 'old', 'new', 'reason'),
    [
        ('conv.weight', (8, 3, 5, 5), (8, 3, 3, 3), r'a kernel of (5, 5) for (3, 3)'),
        ('pos_embed', (1, 50, 8), (1, 17, 4), r'a table of (1, 50) for (1, 17): resize it first'),
    ],
)
def test_other_kernels_and_tables_are_refused(
    name: str, old: tuple[int, ...], new: tuple[int, ...], reason: str
) -> None:
    plan = plan_of({name: (old, new), 'fc1.weight': ((6, 8), (6, 4))})
    assert plan[name].kind == 'refused'
    assert plan[name].reason == reason


def test_other_integers_are_refused() -> None:
    plan = plan_of({'fc1.weight': ((6, 8), (6, 4))}, index=torch.arange(6))
    assert plan['index'].reason == 'integers of shape (6,) for (3,)'
