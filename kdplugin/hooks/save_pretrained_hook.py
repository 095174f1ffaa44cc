"""A trained diffusers model as a folder that ``from_pretrained`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kdplugin.errors import ConfigError
from kdplugin.registry import HOOKS


@HOOKS.register_module()
class SavePretrainedHook(Hook):
    """Write the student with ``save_pretrained`` when training ends: config.json and safetensors alone.

    With an ``EMAHook`` its average is written, as ``<out>_ema``, beside it.

    Args:
        out: folder, in the work dir unless it is absolute.

    Raises:
        ConfigError: the model is none of diffusers.
    """

    priority = 'LOWEST'

    def __init__(self, out: str = 'student') -> None:
        self.out = out

    def before_run(self, runner: Runner) -> None:
        self._savable(runner.model)

    def after_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        folder = Path(runner.work_dir) / self.out
        self._savable(runner.model).save_pretrained(folder)
        for hook in runner.hooks:
            averaged = getattr(hook, 'ema_model', None)
            if averaged is not None:
                self._savable(averaged.module).save_pretrained(folder.with_name(f'{folder.name}_ema'))
        runner.logger.info(f'The student is in {folder}.')

    @staticmethod
    def _savable(model: Any) -> Any:
        model = model.module if is_model_wrapper(model) else model
        if not hasattr(model, 'save_pretrained'):
            raise ConfigError(
                f'Expected a model of diffusers for SavePretrainedHook but got {type(model).__name__}. Remove the '
                'hook; tools/export_student.py writes other students.'
            )
        return model
