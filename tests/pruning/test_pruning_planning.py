"""From scorers and budgets to a plan."""

from __future__ import annotations

import pytest
import torch
from eva_stand_in import DEPTH, HEADS, HIDDEN, Detector, stirred, tokens
from torch import Tensor

from kdplugin.errors import ConfigError
from kdplugin.pruning.budgets import Budget, choose
from kdplugin.pruning.calibration import Calibration
from kdplugin.pruning.plan import PruningPlan
from kdplugin.pruning.planning import SCORERS, make_pruning_plan, scorer_of
from kdplugin.pruning.scorers.magnitude import magnitude_scores

CALIBRATION = Calibration(stirred(Detector()), [tokens(2)])


def test_heads_and_neurons_by_different_scorers() -> None:
    made = make_pruning_plan(
        CALIBRATION, heads=Budget(2), neurons=Budget(5, 'global'), head_scorer='entropy', neuron_scorer='magnitude',
        about={'teacher': 'abc'},
    )  # fmt: skip
    assert made.plan.head_counts == (2, 2, 2)
    assert sum(made.plan.neuron_counts) == 15
    assert made.plan.prefix == 'backbone.'
    assert made.plan.neurons == choose(magnitude_scores(CALIBRATION, 'neurons'), Budget(5, 'global'))
    assert {unit: scores.shape for unit, scores in made.scores.items()} == {
        'heads': (DEPTH, HEADS),
        'neurons': (DEPTH, HIDDEN),
    }
    about = made.plan.about
    assert (about['teacher'], about['batches']) == ('abc', 1)
    assert (about['heads']['scorer'], about['neurons']['scorer']) == ('entropy', 'magnitude')
    assert PruningPlan.from_json(made.plan.to_json()) == made.plan


def test_without_a_budget_all_stay() -> None:
    made = make_pruning_plan(CALIBRATION, heads=Budget(1), head_scorer='magnitude')
    assert made.plan.prunes_heads
    assert not made.plan.prunes_neurons
    assert list(made.scores) == ['heads']
    with pytest.raises(ConfigError, match='Expected a budget of heads or neurons but got none'):
        make_pruning_plan(CALIBRATION)


@pytest.mark.parametrize('name', SCORERS)
def test_every_scorer_makes_a_plan(name: str) -> None:
    plan = make_pruning_plan(CALIBRATION, heads=Budget(2), head_scorer=name).plan
    assert plan.head_counts == (2, 2, 2)


def test_callables_and_seeds() -> None:
    def last(calibration: Calibration, unit: str) -> Tensor:
        return torch.arange(HEADS).double().expand(DEPTH, HEADS)

    made = make_pruning_plan(CALIBRATION, heads=Budget(2), head_scorer=last)
    assert made.plan.heads == ((2, 3),) * DEPTH
    assert made.plan.about['heads']['scorer'] == 'last'
    plans = [make_pruning_plan(CALIBRATION, heads=Budget(2), head_scorer='random', seed=seed) for seed in (0, 0, 1)]
    assert plans[0].plan == plans[1].plan
    assert plans[0].plan.heads != plans[2].plan.heads
    assert plans[2].plan.about['heads']['seed'] == 1


def test_an_unknown_scorer() -> None:
    with pytest.raises(ConfigError, match=r"but got 'tailor'. Did you mean 'taylor'"):
        scorer_of('tailor')
