"""From two models to a plan: which layers, which widths, and the same every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_nets import Vit, fill
from torch import nn
from two_vits import IMAGE, FusedVit, SplitVit

from kdplugin.errors import ConfigError
from kdplugin.weights.apply import apply_plan
from kdplugin.weights.plan import ProjectionPlan
from kdplugin.weights.planning import make_plan

TOKENS = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(0))


def kinds(plan: ProjectionPlan) -> Counter[str]:
    return Counter(entry.kind for entry in plan.entries)


def layers_of(plan: ProjectionPlan) -> list[int]:
    """Return which source block each target block comes from."""
    found = [e.sources[0] for e in plan.entries if e.target.endswith('attn.proj.weight')]
    return [int(name.split('blocks.')[1].split('.')[0]) for name in found]


@pytest.mark.parametrize('method', ['truncate', 'average', 'svd'])
def test_a_narrower_student_of_the_family_is_projected_everywhere(method: str) -> None:
    teacher, student = fill(Vit()), Vit(width=16, heads=2, hidden=24)
    plan = make_plan(teacher, student, method=method, head_dim=8)
    as_it_is = [] if method == 'svd' else ['head.bias']  # svd folds the last norm's bias into it
    assert [entry.target for entry in plan.entries if entry.kind != 'projected'] == as_it_is
    assert all(entry.sources[0] == entry.target for entry in plan.entries)
    student.load_state_dict(apply_plan(plan, teacher).tensors)
    assert torch.isfinite(student(TOKENS)).all()


def test_a_shallower_and_narrower_student_takes_both_ends() -> None:
    plan = make_plan(fill(Vit(depth=5)), Vit(width=16, heads=2, hidden=24, depth=3), head_dim=8)
    assert layers_of(plan) == [0, 2, 4]
    assert kinds(plan) == {'projected': len(plan)}
    assert plan.groups


@pytest.mark.parametrize(
    ('layers', 'chosen'), [('uniform', [0, 2, 4]), ('first', [0, 1, 2]), ('last', [2, 3, 4]), ([0, 1, 4], [0, 1, 4])]
)
def test_layers_are_chosen_as_said(layers: str | list[int], chosen: list[int]) -> None:
    assert layers_of(make_plan(fill(Vit(depth=5)), Vit(depth=3), layers=layers)) == chosen


@pytest.mark.parametrize('narrow', [False, True])
def test_the_layer_that_repeats_its_neighbour_goes(narrow: bool) -> None:
    """Blocks 1 and 2 are the same, so one of them goes; the ends stay."""
    teacher = fill(Vit(depth=4))
    teacher.blocks[2].load_state_dict(teacher.blocks[1].state_dict())
    student = Vit(depth=3, width=16, heads=2, hidden=24) if narrow else Vit(depth=3)
    assert layers_of(make_plan(teacher, student, layers='similarity', head_dim=8)) == [0, 1, 3]


def test_equal_shapes_stay_exact() -> None:
    teacher = fill(Vit(depth=4))
    plan = make_plan(teacher, Vit(depth=4))
    assert kinds(plan) == {'exact': len(teacher.state_dict())}
    assert plan.groups == {}
    shallow = make_plan(teacher, Vit(depth=2))
    assert set(kinds(shallow)) <= {'exact', 'renamed'}


def test_another_class_count_alone_does_not_call_for_projection() -> None:
    teacher, student = fill(SplitVit()), FusedVit()
    student.head = nn.Linear(8, 3)
    plan = make_plan(teacher, student)
    assert [entry.target for entry in plan.entries if not entry.loads] == ['head.weight', 'head.bias']
    assert not kinds(plan)['projected']


def test_other_names_and_other_widths_at_once() -> None:
    teacher, student = fill(SplitVit(width=16)), FusedVit(width=8)
    plan = make_plan(teacher, student, method='truncate', heads=2)
    assert all(entry.loads for entry in plan.entries)
    assert plan['blocks.1.attn.qkv.weight'].sources == tuple(
        f'encoder.layer.1.attention.attention.{part}.weight' for part in ('query', 'key', 'value')
    )
    student.load_state_dict(apply_plan(plan, teacher).tensors)
    assert torch.isfinite(student(IMAGE)).all()


def test_the_same_models_give_the_same_plan() -> None:
    teacher, student = fill(Vit(depth=4)), Vit(width=16, heads=2, hidden=24)
    state = {name: value.clone() for name, value in student.state_dict().items()}
    one, two = (make_plan(teacher, student, dummy_input=TOKENS, head_dim=8) for _ in range(2))
    assert one.to_json() == two.to_json()
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


def test_files_and_dicts_and_models_give_the_same_entries(tmp_path: Path) -> None:
    teacher, student = fill(Vit()), Vit(width=16, heads=2, hidden=24)
    torch.save({'state_dict': teacher.state_dict()}, tmp_path / 'teacher.pth')
    plans = [
        make_plan(source, student, head_dim=8) for source in (teacher, teacher.state_dict(), tmp_path / 'teacher.pth')
    ]
    assert plans[0].entries == plans[1].entries == plans[2].entries
    assert plans[2].source == str(tmp_path / 'teacher.pth')


def test_an_unknown_choice_of_layers_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"but got 'unifrom'. Did you mean 'uniform'\?"):
        make_plan(Vit(depth=3), Vit(depth=2), layers='unifrom')


def test_a_high_threshold_refuses() -> None:
    plan = make_plan(fill(SplitVit()), FusedVit(), threshold=0.99)
    assert kinds(plan)['refused'] > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(method='svdd'), r"Expected method of truncate, average, svd but got 'svdd'\. Did you mean 'svd'"),
        (dict(layers='frist'), r"Expected layers of uniform, first, .* but got 'frist'\. Did you mean 'first'"),
    ],
)
def test_unknown_options_are_errors_where_they_would_not_matter_too(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(nn.Linear(8, 8), nn.Linear(8, 8), **options)
