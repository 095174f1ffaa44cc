"""Which units a budget keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kdplugin.errors import ConfigError
from kdplugin.pruning.budgets import Budget, choose

SCORES = torch.tensor([[4.0, 1.0, 3.0, 2.0], [40.0, 10.0, 30.0, 20.0]])


@pytest.mark.parametrize(
    ('budget', 'kept'),
    [
        (Budget(2), ((0, 2), (0, 2))),
        (Budget(4), ((0, 1, 2, 3), (0, 1, 2, 3))),
        (Budget(2, keep={1: [1]}), ((0, 2), (0, 1))),
        (Budget(2, keep={1: [1, 3]}), ((0, 2), (1, 3))),
        (Budget(2, 'global', normalise=False), ((0,), (0, 2, 3))),
        (Budget(2, 'global', least=2, normalise=False), ((0, 2), (0, 2))),
        (Budget(2, 'global'), ((0, 2), (0, 2))),
        (Budget(2, 'global', normalise=False, keep={0: [1, 3]}), ((1, 3), (0, 2))),
        (Budget(3, 'global', normalise=False, keep={0: [3]}), ((0, 3), (0, 1, 2, 3))),
    ],
)
def test_kept_units(budget: Budget, kept: Any) -> None:
    assert choose(SCORES, budget) == kept


def test_equal_scores_keep_the_first() -> None:
    assert choose(torch.ones(2, 40), Budget(3)) == ((0, 1, 2),) * 2
    assert choose(torch.ones(2, 40), Budget(2, 'global')) == ((0, 1, 2), (0,))


def test_negative_scores_are_scores() -> None:
    assert choose(-SCORES[:1], Budget(1)) == ((1,),)


def test_the_global_number_is_exact() -> None:
    scores = torch.rand(6, 16, generator=torch.Generator().manual_seed(0))
    for count in (2, 7, 16):
        kept = choose(scores, Budget(count, 'global', least=2))
        assert sum(map(len, kept)) == 6 * count
        assert min(map(len, kept)) >= 2


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(count=2, scope='layer'), "Expected a scope of block or global but got 'layer'"),
        (dict(count=0), 'Expected count and least of at least 1 but got 0 and 1'),
        (dict(count=1, least=0, scope='global'), 'at least 1 but got 1 and 0'),
        (dict(count=1, least=2, scope='global'), 'Expected least of at most count, 1, but got 2'),
    ],
)
def test_budgets_that_contradict_themselves(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Budget(**settings)


@pytest.mark.parametrize(
    ('budget', 'message'),
    [
        (Budget(5), 'Expected to keep at most 4 in each block but got 5'),
        (Budget(1, keep={2: [0]}), 'Expected blocks from 0 to 1 to keep units of but got 2'),
        (Budget(1, keep={0: [4]}), r'Expected units from 0 to 3 to keep in block 0 but got \[4\]'),
        (Budget(1, keep={0: [1, 2]}), 'Expected at most 1 units to keep in block 0 but got 2'),
        (Budget(1, 'global', keep={0: [1, 2]}), 'Expected least and keep to ask for at most 2 units but got 3'),
    ],
)
def test_budgets_that_do_not_fit(budget: Budget, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose(SCORES, budget)


def test_scores_must_be_finite() -> None:
    with pytest.raises(ConfigError, match='Expected finite scores but got NaN'):
        choose(torch.tensor([[float('nan'), 1.0]]), Budget(1))


def test_records_are_plain() -> None:
    record = Budget(2, 'global', keep={1: (0, 3)}).record()
    assert record == dict(count=2, scope='global', least=1, keep={'1': [0, 3]}, normalise=True)
