"""The plain model comes out of whatever wraps it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.model import BaseModel
from torch import distributed, nn

from kdplugin.hooks.cpu_ddp import CPUDistributedDataParallel
from kdplugin.hooks.model_of import is_sharded, model_of, weights_of


class Small(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        return self.layer(inputs)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def run_of(model: nn.Module) -> Any:
    return SimpleNamespace(model=model)


def test_with_and_without_a_wrapper(group: None) -> None:
    model = Small()
    for runner in (run_of(model), run_of(CPUDistributedDataParallel(model))):
        assert model_of(runner) is model
        assert not is_sharded(runner)
        assert set(weights_of(runner)) == {'layer.weight', 'layer.bias'}
