from __future__ import annotations

import pytest
import torch
from torch import nn

from kdplugin.errors import CheckpointError
from kdplugin.models.detectors.parts import load_parts, split_checkpoint

FILE = {'img_backbone.a.w': torch.ones(2), 'neck.w': torch.ones(3), 'neck_extra.w': torch.ones(4), 'pos': torch.ones(5)}


def test_prefixes_end_at_dots_and_the_longest_counts() -> None:
    parts = {'backbone': 'img_backbone', 'neck': 'neck', 'pos': 'pos'}
    split = split_checkpoint(FILE, parts, ['neck_extra'], 'file')
    assert list(split.tensors) == ['backbone.a.w', 'neck.w', 'pos']
    assert [(one.prefix, one.tensors, one.parameters, one.use) for one in split.reports] == [
        ('img_backbone', 1, 2, 'loaded as backbone'), ('neck', 1, 3, 'loaded as neck'),
        ('neck_extra', 1, 4, 'ignored'), ('pos', 1, 5, 'loaded as pos'),
    ]  # fmt: skip


def test_nothing_is_loaded_where_one_part_does_not_fit() -> None:
    model = nn.ModuleDict({'one': nn.Linear(2, 2), 'two': nn.Linear(2, 2)})
    before = model['one'].weight.clone()
    tensors = {'one.weight': torch.ones(2, 2), 'one.bias': torch.ones(2), 'two.weight': torch.ones(3, 2)}
    with pytest.raises(
        CheckpointError, match=r'to fit two in all 2 tensors .* bias is missing; weight is \(3, 2\) instead'
    ):
        load_parts(model, tensors, ['one', 'two'], 'file')
    assert torch.equal(model['one'].weight, before)
    with pytest.raises(CheckpointError, match='extra is left over'):
        load_parts(model, {**tensors, 'one.extra': torch.ones(1)}, ['one'], 'file')
    load_parts(model, tensors, ['one'], 'file')
    assert torch.equal(model['one'].weight, torch.ones(2, 2))
