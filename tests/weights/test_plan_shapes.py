"""A plan that does not fit its source fails before a value is read, with the tensor, the step and the shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdplugin.errors import CheckpointError
from kdplugin.weights.plan import AxisGroup, Entry, Piece, ProjectionPlan, Step
from kdplugin.weights.plan_shapes import check_plan, side_widths
from kdplugin.weights.reading.tensor_source import MemorySource

SOURCE = MemorySource({'fc.weight': torch.empty(8, 6, device='meta'), 'count': torch.tensor(3)}, 'teacher.pth')
HEADS = AxisGroup('heads', 8, 6, 'truncate', (), unit=4, target_unit=2)


def project(dim: int, group: str = 'hidden', side: str = 'out') -> Step:
    return Step('project', {'dim': dim, 'group': group, 'side': side})


def plan(*pieces: Piece, shape: tuple[int, ...] = (4, 6), join: int | None = None) -> ProjectionPlan:
    entry = Entry('head.weight', shape, 'projected', pieces, join)
    groups = {'hidden': AxisGroup('hidden', 8, 4, 'truncate', ()), 'heads': HEADS}
    return ProjectionPlan('teacher', 'student', (entry,), groups)


def test_fitting_plans_pass_without_values() -> None:
    check_plan(plan(Piece('fc.weight', (project(0),))), SOURCE)
    check_plan(plan(Piece('fc.weight', (project(0),)), Piece(None, (), (1, 6)), shape=(5, 6), join=0), SOURCE)
    check_plan(plan(Piece('fc.weight', (project(0, 'heads', 'q'),)), shape=(6, 6)), SOURCE)


def test_widths_by_side() -> None:
    assert [side_widths(HEADS, side) for side in ('q', 'in', 'gain', 'head', 'dim')] == [
        (8, 6), (8, 6), (8, 6), (2, 3), (4, 2)]  # fmt: skip


@pytest.mark.parametrize(
    ('pieces', 'changed', 'message'),
    [
        (
            (Piece('fc.weight'),),
            {},
            r'Expected head.weight of shape \(4, 6\) but the plan makes \(8, 6\) of fc.weight\. ',
        ),
        (
            (Piece('fc.wieght'),),
            {},
            r"head.weight: Expected a tensor 'fc.wieght' in teacher.pth but it is not there\. Did "
            r"you mean 'fc.weight'\? Make the plan again",
        ),
        (
            (Piece('fc.weight', (project(1),)),),
            {},
            r'head.weight: Expected axis 1 to be 8 wide for project\(1, hidden, '
            r'out\) but got shape \(8, 6\)\. Correct the plan',
        ),
        ((Piece('fc.weight', (project(2),)),), {}, r'Expected axis 2 to be 8 wide'),
        (
            (Piece('fc.weight', (project(0, 'hiden'),)),),
            {},
            r"Expected an axis group of the plan but got 'hiden'\. Did you "
            r"mean 'hidden'\? Correct the plan",
        ),
        (
            (Piece('count', (Step('reshape', {'shape': [1]}), project(0))),),
            {},
            r'Expected floating numbers for project\(',
        ),
        ((Piece(None),), {}, r'head.weight: Expected the shape of a piece of zeros but got none\. Give it a shape'),
        (
            (Piece('fc.weight'), Piece(None, (), (1, 5))),
            {'join': 0},
            r'head.weight: Expected pieces that join along axis 0 '
            r'but got \(8, 6\), \(1, 5\)\. Correct the plan',
        ),
    ],
)
def test_plans_that_do_not_fit(pieces: tuple[Piece, ...], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_plan(plan(*pieces, **changed), SOURCE)
