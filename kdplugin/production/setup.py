"""What a production test runs on: a config, a work dir, and the embedded teacher or a real one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin import launch, package_files
from kdplugin.datasets.prompts import read_prompts
from kdplugin.errors import ConfigError
from kdplugin.models.generators.tiny_pipeline import make_tiny_pipeline

CONFIG = package_files.CONFIGS / 'wan' / 'wan-lite_tiny.py'
EPOCHS = 30
"""Rounds through the 56 prompts with the embedded teacher."""
REAL_CONFIG = package_files.CONFIGS / 'wan' / 'wan-lite_1024x16_wan22-a14b.py'


@dataclass(frozen=True)
class Settings:
    """Of a production test.

    Args:
        work_dir: everything is written here.
        teacher: folder of a real pipeline; None makes the embedded one.
        epochs: rounds through the training prompts; None is 30 with the embedded teacher and the config's own length
            with a real one.
        batch_size: None is the config's own.
        seed: of the runs.
    """

    work_dir: Path
    teacher: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0

    @property
    def config_file(self) -> Path:
        return CONFIG if self.teacher is None else REAL_CONFIG


def prepare_teacher(settings: Settings) -> str:
    """Return the folder of the teacher, made now if it is the embedded one."""
    if settings.teacher is not None:
        return settings.teacher
    return str(make_tiny_pipeline(settings.work_dir / 'teacher', prompts=read_prompts()))


def run_config(
    settings: Settings, name: str, teacher: str, *, projected: bool = True, full: bool = False, **changes: Any
) -> Config:
    """Return the config of one run, in a work dir of its own.

    Args:
        settings: of the test.
        name: of the run.
        teacher: folder.
        projected: start from the teacher's weights.
        full: train as long as the config says.
        changes: to the config, by dotted key.

    Raises:
        ConfigError: less than one epoch or one prompt in a batch.
    """
    for key, value in (('epochs', settings.epochs), ('batch size', settings.batch_size)):
        if value is not None and value < 1:
            raise ConfigError(f'Expected {key} of at least 1 but got {value}. Leave it out for that of the config.')
    options: dict[str, Any] = {
        'teacher': teacher, 'model.teacher.path': teacher, 'randomness.seed': settings.seed,
        'model.text_encoder.cache': str(settings.work_dir / 'text'), 'log_level': 'WARNING',
    }  # fmt: skip
    config = launch.read_config(settings.config_file, options)
    for hook in config.custom_hooks:
        if hook.get('type') == 'kdplugin.WeightProjectionHook':
            hook.source = teacher
    if not projected:
        config.custom_hooks = [hook for hook in config.custom_hooks if 'Projection' not in str(hook.get('type'))]
    if settings.batch_size is not None:
        config.train_dataloader.batch_size = settings.batch_size
    epochs = EPOCHS if settings.epochs is None and settings.teacher is None else settings.epochs
    if epochs is not None and not full:
        _set_length(config, epochs)
    config.merge_from_dict(changes)
    config.work_dir = str(settings.work_dir / name)
    return config


def _set_length(config: Config, epochs: int) -> None:
    """Train for whole rounds through the prompts, the last batch of a round included."""
    batches = -(-len(read_prompts()) // config.train_dataloader.batch_size)
    iters = epochs * batches
    config.train_cfg.max_iters = iters
    config.param_scheduler = [dict(type='OneCycleLR', eta_max=config.optim_wrapper.optimizer.lr, total_steps=iters,
                                   pct_start=0.1, by_epoch=False)]  # fmt: skip
    config.default_hooks.checkpoint.interval = max(iters // 2, 1)


def half(config: Mapping[str, Any]) -> int:
    """Return the iteration at which a run that is to be resumed stops."""
    return int(config['default_hooks']['checkpoint']['interval'])
