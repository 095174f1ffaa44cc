from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from mmengine.logging import MessageHub
from torch import Tensor, nn

from kdplugin.distill.first_step import first_step
from kdplugin.distill.probe import probe


@pytest.fixture
def hub() -> MessageHub:
    return MessageHub.get_instance('a run of its own')


def test_counters_are_there_in_the_block_and_gone_after_it(hub: MessageHub) -> None:
    assert hub.get_info('iter') is None
    with contextlib.suppress(ValueError), first_step():
        assert (hub.get_info('iter'), hub.get_info('epoch')) == (0, 0)
        raise ValueError
    assert not {'iter', 'epoch'} & hub.runtime_info.keys()


def test_a_training_that_is_under_way_keeps_its_own(hub: MessageHub) -> None:
    hub.update_info('iter', 7)
    with first_step():
        assert (hub.get_info('iter'), hub.get_info('epoch')) == (7, 0)
    assert (hub.get_info('iter'), hub.get_info('epoch')) == (7, None)
    hub.pop_info('iter')


class Asking(nn.Module):
    """Its loss depends on the iteration, as that of BoxInst does."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, inputs: Tensor, samples: list[Any] | None = None, mode: str = 'tensor') -> Tensor:
        if mode != 'loss':
            return inputs
        return self.layer(inputs) * (MessageHub.get_current_instance().get_info('iter') + 1)


def test_a_model_that_asks_is_probed_before_any_training(hub: MessageHub) -> None:
    found = probe(Asking(), ['layer'], 'student', [(8, 8)])
    assert found.mode == 'loss'
    assert found.shapes == {'layer': [(1, 4, 8, 8)]}
    assert torch.is_grad_enabled()
