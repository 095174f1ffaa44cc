"""From a model, scorers and budgets to a plan."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.pruning.blocks import HEADS, NEURONS
from kdplugin.pruning.budgets import Budget, choose
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.scorers.chance import chance_scores
from kdplugin.pruning.scorers.entropy import entropy_scores
from kdplugin.pruning.scorers.magnitude import magnitude_scores
from kdplugin.pruning.scorers.reconstruction import reconstruction_scores
from kdplugin.pruning.scorers.taylor import taylor_scores


class Scorer(Protocol):
    """Scores heads or neurons of a model: the larger, the more it matters."""

    def __call__(self, calibration: Calibration, unit: str) -> Tensor:
        """Return one score per unit [L, U]."""


SCORERS: dict[str, Scorer] = {
    'magnitude': magnitude_scores,
    'taylor': taylor_scores,
    'entropy': entropy_scores,
    'reconstruction': reconstruction_scores,
    'reconstruction_refit': functools.partial(reconstruction_scores, refit=True),
    'random': chance_scores,
}
"""Scorers by name; 'entropy' is for heads alone."""


def scorer_of(what: str | Scorer, seed: int = 0) -> Scorer:
    """Return a scorer by its name, or as it is; ``seed`` is that of 'random'.

    Raises:
        ConfigError: there is none of that name.
    """
    if not isinstance(what, str):
        return what
    if what not in SCORERS:
        raise ConfigError(
            f'Expected a scorer of {", ".join(SCORERS)} but got {what!r}.{did_you_mean(what, SCORERS)} '
            'Choose one of these, or give a function.'
        )
    return functools.partial(chance_scores, seed=seed) if what == 'random' else SCORERS[what]


@dataclass(frozen=True)
class Choice:
    """A plan, and the scores that it comes from: {'heads': [L, A], 'neurons': [L, F]}, for what was scored."""

    plan: PruningPlan
    scores: dict[str, Tensor] = field(default_factory=dict)


def make_pruning_plan(
    calibration: Calibration,
    *,
    heads: Budget | None = None,
    neurons: Budget | None = None,
    head_scorer: str | Scorer = 'taylor',
    neuron_scorer: str | Scorer = 'taylor',
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> Choice:
    """Score the heads and neurons of a model and keep the best ones; without a budget all stay.

    Heads and neurons are scored apart, each with the others in place.

    Args:
        calibration: model and batches.
        heads, neurons: how many stay.
        head_scorer, neuron_scorer: names from ``SCORERS`` or callables.
        seed: of the scorer 'random'.
        about: what else the plan should say about itself, such as the teacher's hash.

    Raises:
        ConfigError: nothing is to be pruned, or a scorer or a budget does not fit.
    """
    if heads is None and neurons is None:
        raise ConfigError('Expected a budget of heads or neurons but got none. Give one.')
    sizes = calibration.blocks.sizes
    said: dict[str, Any] = {**(about or {}), 'batches': len(calibration.batches)}
    kept: dict[str, tuple[tuple[int, ...], ...]] = {}
    scores: dict[str, Tensor] = {}
    for unit, budget, what in ((HEADS, heads, head_scorer), (NEURONS, neurons, neuron_scorer)):
        if budget is None:
            kept[unit] = (tuple(range(sizes.units(unit))),) * sizes.depth
            continue
        scores[unit] = scorer_of(what, seed)(calibration, unit)
        kept[unit] = choose(scores[unit], budget)
        name = what if isinstance(what, str) else getattr(what, '__name__', type(what).__name__)
        said[unit] = {'scorer': name, 'budget': budget.record()} | ({'seed': seed} if name == 'random' else {})
    plan = PruningPlan(kept[HEADS], kept[NEURONS], sizes.num_heads, sizes.hidden, sizes.head_dim, sizes.prefix, said)
    return Choice(plan, scores)
