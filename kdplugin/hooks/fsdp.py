"""Fully sharded training (FSDP, version 1) of a distilled student, through mmengine's FlexibleRunner and strategy.

    runner_type = 'FlexibleRunner'
    strategy = dict(type='kdplugin.FSDPStrategy', model_wrapper=dict(auto_wrap_policy=...))

The teacher hangs on a plain attribute of the student, so no shard holds it: each process has all of it.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from mmengine._strategy.fsdp import FSDPStrategy as HostStrategy
from mmengine.model import MMFullyShardedDataParallel, revert_sync_batchnorm
from mmengine.runner import checkpoint as host
from torch import Tensor, distributed, nn

from kdplugin.distill.distiller import adapters_of
from kdplugin.hooks import atomic_backend  # noqa: F401 - registers the backend
from kdplugin.registry import MODEL_WRAPPERS, STRATEGIES


@MODEL_WRAPPERS.register_module()
class FullyShardedDataParallel(MMFullyShardedDataParallel):
    """mmengine's wrapper with the adapters whole on every process, and for CPUs too.

    Adapters are small, and left out of the student's ``state_dict``, which FSDP does not allow of what it shards. Their
    gradients are averaged as DDP does.
    """

    def __init__(self, module: nn.Module, device_id: Any = None, **kwargs: Any) -> None:
        gpu = torch.cuda.is_available()
        device = torch.device('cuda', device_id) if gpu and isinstance(device_id, int) else torch.device('cpu')
        adapters = adapters_of(module).to(device)
        for value in adapters.parameters():
            distributed.broadcast(value.data, 0)
            value.register_post_accumulate_grad_hook(average_gradient)
        if len(adapters):
            kwargs['ignored_modules'] = [*kwargs.get('ignored_modules', ()), adapters]
        super().__init__(
            module=module if gpu else revert_sync_batchnorm(module), device_id=device_id if gpu else device, **kwargs
        )


def average_gradient(parameter: Tensor) -> None:
    """Put the mean over all processes in the place of a gradient; what was gathered before is the same everywhere."""
    if parameter.grad is not None:
        distributed.all_reduce(parameter.grad)
        parameter.grad /= distributed.get_world_size()


def whole_on_rank_0() -> dict[str, Any]:
    """Return the settings for whole state dicts; on CPUs without a move to the CPU, which frees what it reads."""
    settings = dict(rank0_only=True, offload_to_cpu=torch.cuda.is_available())
    return dict(
        state_dict_type='FULL_STATE_DICT',
        state_dict_config=dict(type='FullStateDictConfig', **settings),
        optim_state_dict_config=dict(type='FullOptimStateDictConfig', **settings),
    )


@STRATEGIES.register_module()
class FSDPStrategy(HostStrategy):
    """mmengine's strategy with one whole student in each checkpoint, written atomically and with a checksum.

    Takes the arguments of ``mmengine._strategy.FSDPStrategy``; ``state_dict_cfg`` is 'full' if it is not given.
    """

    def __init__(self, *, model_wrapper: dict[str, Any] | None = None, **kwargs: Any) -> None:
        wrapper = {'type': 'kdplugin.FullyShardedDataParallel', **(model_wrapper or {})}
        if kwargs.get('state_dict_cfg', 'full') == 'full':
            kwargs['state_dict_cfg'] = whole_on_rank_0()
        super().__init__(model_wrapper=wrapper, **kwargs)

    def save_checkpoint(self, filename: str, **kwargs: Any) -> None:
        write = host.save_checkpoint

        def safely(checkpoint: Any, path: Any) -> None:
            write(checkpoint, path, backend_args=dict(backend='kdplugin_atomic'))

        with mock.patch.object(host, 'save_checkpoint', safely):
            super().save_checkpoint(filename, **kwargs)

    def optim_state_dict(self) -> dict[str, Any]:
        return MMFullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)

    def load_optim_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As mmengine's, whose OneDL line gives the arguments in an order that PyTorch no longer has."""
        own = MMFullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(own)
