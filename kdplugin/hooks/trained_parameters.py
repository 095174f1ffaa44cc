"""An optimizer for what is trained, and nothing else."""

from __future__ import annotations

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from kdplugin.errors import ConfigError
from kdplugin.registry import OPTIM_WRAPPER_CONSTRUCTORS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainedParameters(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, whose optimizer gets only parameters with ``requires_grad``.

    mmengine's own hands the optimizer all parameters, frozen ones too, which then stand in its groups and reports.
    ``optim_wrapper=dict(constructor='kdplugin.TrainedParameters', ...)``; all other settings are mmengine's.

    Raises:
        ConfigError: nothing is trained.
    """

    def __call__(self, model: nn.Module) -> Any:
        plain: Any = model.module if is_model_wrapper(model) else model
        if not any(value.requires_grad for value in plain.parameters()):
            raise ConfigError('Expected something to train but every parameter is frozen. Leave a part unfrozen.')
        wrapper = super().__call__(model)
        groups = wrapper.optimizer.param_groups
        for group in groups:
            group['params'] = [value for value in group['params'] if value.requires_grad]
        groups[:] = [group for group in groups if group['params']]
        return wrapper
