"""What does not fit is an error, and a broken model is not saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdplugin.errors import CheckpointError, NumericError
from kdplugin.hooks.resume_checks import check_no_nan, check_weights

OWN = {'a.weight': torch.zeros(2, 3), 'a.bias': torch.zeros(2), 'bn.num_batches_tracked': torch.tensor(0)}


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ({'a.weight': torch.zeros(2, 3)}, r"1 tensors do not fit, such as \['a\.bias'\]"),
        ({**OWN, 'b.bias': torch.zeros(2)}, r"1 tensors do not fit, such as \['b\.bias'\]"),
        ({**OWN, 'a.weight': torch.zeros(3, 2)}, r"1 tensors do not fit, such as \['a\.weight'\]"),
        ({}, r"2 tensors do not fit, such as \['a\.bias', 'a\.weight'\]"),
    ],
    ids=['missing', 'left over', 'another shape', 'all'],
)
def test_other_weights_are_an_error(weights: Any, message: str) -> None:
    cure = r'\. Resume with the config that wrote the checkpoint, or use load_from to start anew'
    with pytest.raises(CheckpointError, match=rf'Expected to resume this student but {message}{cure}'):
        check_weights(OWN, weights)


def test_counters_of_batchnorm_may_be_missing() -> None:
    check_weights(OWN, {key: value for key, value in OWN.items() if 'num_batches' not in key})


@pytest.mark.parametrize('part', ['state_dict', 'ema_state_dict'])
def test_nan_is_not_saved(part: str) -> None:
    bad = {'a.weight': torch.tensor([1.0, float('nan')]), 'a.bias': torch.tensor([float('inf')])}
    checkpoint = {'state_dict': {'b': torch.zeros(1)}, 'meta': {'iter': 7}, part: bad}
    message = r'numbers to save after iteration 7 but 1 of \d tensors hold NaN, such as .*a\.weight.*Lower the learning'
    with pytest.raises(NumericError, match=rf'{message}.*iter_4\.pth is the last good checkpoint'):
        check_no_nan(checkpoint, 'work/iter_4.pth')
    with pytest.raises(NumericError, match=r'there is no checkpoint yet'):
        check_no_nan(checkpoint, None)


def test_infinite_masks_and_integers_are_saved() -> None:
    check_no_nan({'state_dict': {'mask': torch.tensor([-float('inf')]), 'count': torch.tensor(3)}}, None)
