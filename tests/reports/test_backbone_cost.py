"""Costs of backbones beside each other."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from kdplugin.reports.backbone_cost import compare_costs, count_flops, measure_seconds


class Conv(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_operations_count_two_for_a_multiply_add() -> None:
    model = Conv(5)
    assert count_flops(model, 8) == 2 * 4 * 4 * 5 * 3 * 4
    assert model.conv.weight.device.type == 'cpu'


def test_models_are_timed_in_turns_and_in_eval_mode() -> None:
    order: list[str] = []

    class Noted(Conv):
        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            order.append(str(self.conv.out_channels))
            return super().forward(x)

    taken = measure_seconds({'a': Noted(1), 'b': Noted(2)}, torch.zeros(1, 3, 4, 4), rounds=2)
    assert order == ['1', '2', '1', '2', '1', '2']
    assert [len(values) for one in taken.values() for values in one.values()] == [2, 2, 2, 2]


def test_speed_is_held_against_the_first() -> None:
    class Slow(Conv):
        def forward(self, x: Tensor) -> Tensor:
            end = time.process_time() + 0.02
            while time.process_time() < end:
                pass
            return super().forward(x)

    threads = torch.get_num_threads()
    costs = compare_costs({'slow': Slow(4), 'quick': Conv(2)}, size=8, latency_size=16, rounds=3)
    assert costs['slow']['speedup'] == costs['slow']['speedup_wall'] == 1
    assert costs['quick']['speedup'] > 3
    assert costs['slow']['parameters'] == 48
    assert costs['slow']['flops'] == 2 * costs['quick']['flops']
    assert len(costs['quick']['cpu_seconds']) == 3
    assert torch.get_num_threads() == threads
