"""Watching a model run: the order of its modules, and no trace on mode, buffers or random states."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdplugin.weights.mapping.execution import call, execution_order, largest_difference, tensors_in, untouched


class Backwards(nn.Module):
    """Defines its layers in another order than it runs them; one never runs, one runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.never = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.stem = nn.Linear(3, 4)
        self.fails = False

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = self.body(self.body(self.stem(x * scale)))
        torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002, S311
        if self.fails:
            raise RuntimeError('no more')
        return self.head(x)


def trace_of(model: nn.Module) -> list[Any]:
    """Return all that could change: values, modes, hooks, random states."""
    modules = list(model.modules())
    return [
        {name: value.clone() for name, value in model.state_dict().items()},
        [module.training for module in modules],
        [len(module._forward_pre_hooks) for module in modules],
        [value.requires_grad for value in model.parameters()],
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
    ]


def same(one: list[Any], two: list[Any]) -> bool:
    values = all(torch.equal(value, two[0][name]) for name, value in one[0].items())
    return values and one[1:] == two[1:]


@pytest.mark.parametrize('inputs', [torch.ones(5, 3), (torch.ones(5, 3),), {'x': torch.ones(5, 3), 'scale': 2.0}])
def test_modules_are_ranked_by_their_first_run(inputs: Any) -> None:
    order = execution_order(Backwards(), inputs)
    assert sorted(order, key=order.__getitem__) == ['', 'stem', 'body', 'body.0', 'body.1', 'body.2', 'head']


def test_tuples_are_positional_arguments() -> None:
    model = Backwards().eval()
    x = torch.randn(2, 3)
    torch.testing.assert_close(call(model, (x, 2.0)), call(model, {'x': x, 'scale': 2.0}))
    torch.testing.assert_close(call(model, [x]), model(x))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('fails', [True, False])
def test_no_trace_is_left(training: bool, fails: bool) -> None:
    """In train mode a BatchNorm would count the batch and dropout would draw."""
    model = Backwards().train(training)
    model.body[0].eval()
    model.fails = fails
    before = trace_of(model)
    if fails:
        with pytest.raises(RuntimeError, match='no more'):
            execution_order(model, torch.randn(5, 3, generator=torch.Generator()))
    else:
        execution_order(model, torch.randn(5, 3, generator=torch.Generator()))
    assert same(before, trace_of(model))


def test_buffers_that_the_forward_writes_come_back() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer('calls', torch.zeros(()))
            self.register_buffer('last', torch.full((2,), float('nan')))
            self.register_buffer('table', None)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = x
            self.table = x
            return x

    model = Counting()
    last = model.last
    with untouched(model):
        model(torch.ones(3))
    assert model.calls == 0
    assert model.last is last
    assert torch.isnan(last).all()
    assert model.table is None


def test_models_run_in_eval_mode_without_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))
    x = torch.ones(64, 2)
    with untouched(model):
        first, second = model(x), model(x)
        assert not model.training
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert model.training


@pytest.mark.parametrize(
    ('make', 'difference'),
    [
        (lambda: (torch.zeros(3), torch.tensor([0.0, -0.5, 0.25])), 0.5),
        (lambda: ({'a': torch.ones(2), 'b': [torch.zeros(1)]}, {'a': torch.ones(2), 'b': (torch.ones(1),)}), 1.0),
        (lambda: ((torch.ones(2), torch.tensor([1, 2])), (torch.ones(2), torch.tensor([5, 6]))), 0.0),
        (lambda: (torch.zeros(3), torch.zeros(4)), float('inf')),
        (lambda: ((torch.zeros(3),), (torch.zeros(3), torch.zeros(3))), float('inf')),
        (lambda: (torch.zeros(0, 4), torch.zeros(0, 4)), 0.0),
        (lambda: (torch.zeros(2).half(), torch.ones(2).double()), 1.0),
    ],
)
def test_largest_difference(make: Callable[[], tuple[Any, Any]], difference: float) -> None:
    assert largest_difference(*make()) == difference


@pytest.mark.parametrize('where', [0, 1])
def test_a_nan_on_one_side_is_no_agreement(where: int) -> None:
    outputs = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])]
    outputs[where][1] = float('nan')
    assert largest_difference(outputs[0], outputs[1]) == float('inf')
    assert largest_difference((torch.zeros(2), outputs[0]), (torch.zeros(2), outputs[1])) == float('inf')


def test_outputs_with_no_tensor_cannot_be_compared() -> None:
    """A model may return an object that holds them: 'no difference' would be a guess."""
    assert largest_difference('text', 'text') == float('inf')


def test_outputs_of_dataclasses_are_walked() -> None:
    @dataclass
    class Output:
        logits: Tensor
        name: str = 'x'

    assert [value.tolist() for value in tensors_in([Output(torch.ones(2)), None])] == [[1.0, 1.0]]
    assert largest_difference(Output(torch.ones(2)), Output(torch.zeros(2))) == 1.0


def test_both_nan_or_infinite_in_the_same_places_agree() -> None:
    """Masked scores are often -inf."""
    values = torch.tensor([1.0, float('-inf'), float('nan')])
    assert largest_difference(values, values.clone()) == 0.0
