"""Contract 1 and 8 in one process: what data-parallel training sees of a distilled student."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_fixtures import build, distilled, feature_and_logit_pairs, segmentation_batch, segmentor
from mmengine.model import is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed, nn

from kdplugin.distill import distillation_of
from kdplugin.distill.distiller import adapters_of
from kdplugin.hooks.cpu_ddp import CPUDistributedDataParallel
from kdplugin.weights.reading.io import hash_tensors


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A gloo group of this process alone."""
    distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def wrapped(group: None, shared: Path) -> CPUDistributedDataParallel:
    model = build(distilled(shared, feature_and_logit_pairs(), segmentor(norm='SyncBN')))
    return MODEL_WRAPPERS.build(
        dict(type='kdplugin.CPUDistributedDataParallel', module=model, device_ids=[0], broadcast_buffers=False)
    )


def test_it_is_a_wrapper_for_cpus_with_plain_batchnorm(wrapped: CPUDistributedDataParallel) -> None:
    assert is_model_wrapper(wrapped)
    assert wrapped.device_ids is None
    assert not wrapped.find_unused_parameters
    norms = [module for module in wrapped.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 10
    assert not any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


def test_reverting_keeps_names_and_weights(group: None, shared: Path) -> None:
    model = build(distilled(shared, feature_and_logit_pairs(), segmentor(norm='SyncBN')))
    before = hash_tensors(model.state_dict())
    wrapped = CPUDistributedDataParallel(model)
    assert wrapped.module is model
    assert hash_tensors(model.state_dict()) == before


def test_the_teacher_is_no_part_of_it(wrapped: CPUDistributedDataParallel) -> None:
    teacher = distillation_of(wrapped.module).teacher.module
    hidden = {id(value) for value in (*teacher.parameters(), *teacher.buffers())}
    assert hidden.isdisjoint(id(value) for value in (*wrapped.parameters(), *wrapped.buffers()))
    assert hidden.isdisjoint(id(value) for value in wrapped._module_parameters)


def test_every_parameter_gets_a_gradient_in_each_of_two_steps(wrapped: CPUDistributedDataParallel) -> None:
    """DDP without ``find_unused_parameters`` stops at the second step if one did not."""
    wrapped.train()
    for seed in range(2):
        wrapped.zero_grad()
        losses = wrapped(**segmentation_batch(seed=seed), mode='loss')
        wrapped.module.parse_losses(losses)[0].backward()
        assert losses['loss_kd_feature'] > 0
        assert all(parameter.grad is not None for parameter in wrapped.parameters())
    gradients = [value.grad.abs().sum() for value in adapters_of(wrapped.module).parameters()]
    assert len(gradients) == 8
    assert torch.stack(gradients).min() > 0
