"""Equal shapes whose rows may mean something else are settled by observation or refused by name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from kdplugin.weights.apply import apply_plan
from kdplugin.weights.cautions import with_cautions
from kdplugin.weights.mapper import WeightMapper
from kdplugin.weights.plan import Entry, Piece

Shapes = dict[str, tuple[int, ...]]


def renamed(source: str, target: str, shape: tuple[int, ...]) -> Entry:
    return Entry(target, shape, 'renamed', (Piece(source),))


def unseen(side: int, norm: str) -> Sequence[int] | None:
    return None


def heads(boxes: int) -> Shapes:
    return {'head.cls.weight': (5, 8), 'head.box.weight': (boxes, 8)}


@pytest.mark.parametrize(('theirs', 'ours', 'kind'), [(20, 16, 'refused'), (20, 20, 'renamed'), (16, 16, 'renamed')])
def test_a_background_on_one_side_alone(theirs: int, ours: int, kind: str) -> None:
    source = {f'old.{name}': shape for name, shape in heads(theirs).items()}
    entry = renamed('old.head.cls.weight', 'head.cls.weight', (5, 8))
    changed = with_cautions([entry], (source, heads(ours)), unseen)[0]
    assert changed.kind == kind
    if kind == 'refused':
        assert 'background' in changed.reason
        assert changed.alternatives == ('old.head.cls.weight',)
        assert not changed.pieces


MERGING = [
    renamed('a.down.norm.weight', 'b.down.norm.weight', (8,)),
    renamed('a.down.reduction.weight', 'b.down.reduction.weight', (4, 8)),
]
SHAPES: tuple[Shapes, Shapes] = (
    {entry.sources[0]: entry.shape for entry in MERGING},
    {entry.target: entry.shape for entry in MERGING},
)


def test_patch_merging_that_cannot_be_observed_is_refused() -> None:
    changed = with_cautions(MERGING, SHAPES, unseen)
    assert [entry.kind for entry in changed] == ['refused', 'refused']
    assert all('patches' in entry.reason for entry in changed)


def test_patch_merging_that_was_observed_is_put_in_order() -> None:
    orders = [[0, 4, 1, 5, 2, 6, 3, 7], list(range(8))]
    changed = with_cautions(MERGING, SHAPES, lambda side, norm: orders[side])
    assert [entry.kind for entry in changed] == ['converted', 'converted']
    steps = [entry.pieces[0].steps[0] for entry in changed]
    assert [step.args['dim'] for step in steps] == [0, 1]
    assert [orders[0][index] for index in steps[0].args['indices']] == orders[1]
    same = with_cautions(MERGING, SHAPES, lambda side, norm: orders[1])
    assert [entry.kind for entry in same] == ['renamed', 'renamed']


def detector(classes: int, names: tuple[str, str]) -> nn.Module:
    return nn.ModuleDict({names[0]: nn.Linear(8, 8), names[1]: nn.Linear(8, classes)})


def test_a_head_of_other_classes_is_refused_by_name() -> None:
    mapper = WeightMapper(detector(9, ('body', 'cls_score')), detector(5, ('trunk', 'fc_cls')))
    entry = mapper.plan['fc_cls.weight']
    assert entry.kind == 'refused'
    assert entry.reason == 'cls_score.weight may be meant, but its shape is (9, 8)'
    tensors = apply_plan(mapper.plan, mapper.source).tensors
    assert set(tensors) == {'trunk.weight', 'trunk.bias'}
    assert torch.equal(tensors['trunk.bias'], mapper.source['body.bias'])
