from __future__ import annotations

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import kdplugin.registry  # noqa: F401 - teaches mmengine the prefix
from kdplugin.errors import ConfigError

WRAPPER = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.5))


def model() -> nn.Module:
    parts = nn.ModuleDict({'backbone': nn.Linear(2, 2), 'head': nn.Linear(2, 2)})
    parts['head'].requires_grad_(False)
    return parts


def held(wrapper: object) -> list[nn.Parameter]:
    return [value for group in wrapper.optimizer.param_groups for value in group['params']]  # type: ignore[attr-defined]


@pytest.mark.parametrize('paramwise', [None, dict(bias_decay_mult=0.0)], ids=['plain', 'paramwise'])
def test_only_what_is_trained_is_in_the_optimizer(paramwise: dict[str, float] | None) -> None:
    parts = model()
    settings = dict(WRAPPER, **({} if paramwise is None else dict(paramwise_cfg=paramwise)))
    if paramwise is None:
        assert len(held(build_optim_wrapper(parts, settings))) == 4  # mmengine's own: the head too
    wrapper = build_optim_wrapper(parts, dict(settings, constructor='kdplugin.TrainedParameters'))
    assert {id(value) for value in held(wrapper)} == {id(value) for value in parts['backbone'].parameters()}
    decays = {group['weight_decay'] for group in wrapper.optimizer.param_groups}
    assert decays == ({0.5} if paramwise is None else {0.5, 0.0})
    wrapper.update_params(parts['backbone'](torch.ones(1, 2)).sum())
    assert len(wrapper.optimizer.state) == 2


def test_nothing_to_train_is_an_error() -> None:
    parts = model().requires_grad_(False)
    with pytest.raises(ConfigError, match='Expected something to train but every parameter is frozen'):
        build_optim_wrapper(parts, dict(WRAPPER, constructor='kdplugin.TrainedParameters'))
