"""From scores to kept units: how many, over which blocks, and which ones whatever their score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean

SCOPES = ('block', 'global')


@dataclass(frozen=True)
class Budget:
    """How many heads or neurons stay.

    Args:
        count: kept units of each block; with 'global' on average.
        scope: 'block', the same number in every block, or 'global', the best ones of all blocks.
        least: with 'global', what every block keeps at least.
        keep: units that stay whatever their score: {block: [units]}. They count towards ``count``.
        normalise: with 'global', divide the scores of a block by their L2 norm first, so that blocks compare
            (Molchanov et al., ICLR 2017).
    """

    count: int
    scope: str = 'block'
    least: int = 1
    keep: Mapping[int, Sequence[int]] = field(default_factory=dict)
    normalise: bool = True

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ConfigError(
                f'Expected a scope of {" or ".join(SCOPES)} but got {self.scope!r}.{did_you_mean(self.scope, SCOPES)} '
                'Choose one of them.'
            )
        if self.count < 1 or self.least < 1:
            raise ConfigError(
                f'Expected count and least of at least 1 but got {self.count} and {self.least}. A block without '
                'heads or neurons is not supported: keep one.'
            )
        if self.scope == 'global' and self.least > self.count:
            raise ConfigError(
                f'Expected least of at most count, {self.count}, but got {self.least}. Keep more, or lower least.'
            )

    def record(self) -> dict[str, Any]:
        """Return the budget as plain values for a plan."""
        return {**asdict(self), 'keep': {str(block): list(units) for block, units in self.keep.items()}}


def choose(scores: Tensor, budget: Budget) -> tuple[tuple[int, ...], ...]:
    """Return the kept units of each block, sorted; of equal scores the first ones.

    Args:
        scores: one for each unit [L, U], finite, larger for what is important.
        budget: how many.

    Raises:
        ConfigError: the budget asks for more than there is, or names units that are not there.

    Example:
        >>> choose(torch.tensor([[3.0, 1.0, 2.0], [9.0, 8.0, 7.0]]), Budget(1, keep={0: [1]}))
        ((1,), (0,))
        >>> choose(torch.tensor([[3.0, 1.0, 2.0], [9.0, 8.0, 7.0]]), Budget(2, 'global', normalise=False))
        ((0,), (0, 1, 2))
    """
    depth, units = scores.shape
    if not torch.isfinite(scores).all():
        raise ConfigError('Expected finite scores but got NaN or infinity. Calibrate in float32, on other batches.')
    _check(budget, depth, units)
    ranked = scores.double()
    if budget.scope == 'global' and budget.normalise:
        ranked = ranked / torch.linalg.vector_norm(ranked, dim=1, keepdim=True).clamp_min(1e-300)
    chosen = torch.zeros(depth, units, dtype=torch.bool)
    for block, named in budget.keep.items():
        chosen[block, list(named)] = True
    ranked = ranked.masked_fill(chosen, float('inf'))
    least = budget.count if budget.scope == 'block' else budget.least
    chosen.scatter_(1, _best(ranked)[:, :least], True)
    if budget.scope == 'global':
        rest = ranked.masked_fill(chosen, float('inf')).flatten()
        chosen.view(-1)[_best(rest)[: budget.count * depth]] = True
    return tuple(tuple(row.nonzero().flatten().tolist()) for row in chosen)


def _best(scores: Tensor) -> Tensor:
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices


def _check(budget: Budget, depth: int, units: int) -> None:
    if budget.count > units:
        raise ConfigError(f'Expected to keep at most {units} in each block but got {budget.count}. Keep fewer.')
    for block, named in budget.keep.items():
        if not 0 <= block < depth:
            raise ConfigError(f'Expected blocks from 0 to {depth - 1} to keep units of but got {block}. Correct keep.')
        if not set(named) <= set(range(units)):
            raise ConfigError(
                f'Expected units from 0 to {units - 1} to keep in block {block} but got {list(named)}. Correct keep.'
            )
        if budget.scope == 'block' and len(set(named)) > budget.count:
            raise ConfigError(
                f'Expected at most {budget.count} units to keep in block {block} but got {len(set(named))}. '
                "Keep fewer, raise count, or use scope='global'."
            )
    if budget.scope == 'global':
        needed = sum(max(budget.least, len(set(budget.keep.get(block, ())))) for block in range(depth))
        if needed > budget.count * depth:
            raise ConfigError(
                f'Expected least and keep to ask for at most {budget.count * depth} units but got {needed}. '
                'Raise count.'
            )
