"""The frozen teacher: built, loaded strictly, and run without gradient."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn

from kdplugin.checkpoint_schemes import local_file
from kdplugin.distill.model_config import student_config
from kdplugin.distill.probe import ProbeResult
from kdplugin.distill.taps import catch
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.io import hash_file, read_checkpoint, state_dict_of

TEACHER_KEYS = ('cfg', 'model', 'checkpoint', 'trust_checkpoint')


@dataclass
class Teacher:
    """A model in eval mode without gradients, outside every module tree.

    Args:
        module: the model.
        checkpoint: the file its weights came from.
        sha256: of that file.
        tensors: number of tensors loaded (all of them).
        parameters: number of parameters loaded.
        probed: set by the engine: how to run it and what its taps put out.
    """

    module: nn.Module
    checkpoint: str
    sha256: str
    tensors: int
    parameters: int
    probed: ProbeResult | None = None

    @torch.no_grad()
    def outputs(self, taps: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, list[Tensor]]:
        """Run the teacher on a student's batch and return what its taps put out."""
        if self.probed is None:
            raise ConfigError('Expected a probed teacher but got none. Build it through kdplugin.Distiller.')
        device = _first_tensor(args, kwargs).device
        if next(self.module.parameters()).device != device:
            self.module.to(device)
        with catch(self.module, taps, 'teacher', clone=self.probed.overwritten) as caught:
            self.module(*args[:2], **{**kwargs, 'mode': self.probed.mode})
        return caught.tensors


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def build_teacher(config: Mapping[str, Any]) -> Teacher:
    """Build and load a teacher from ``dict(cfg= or model=, checkpoint=, trust_checkpoint=False)``.

    Args:
        config: ``cfg`` is a config file ('mmdet::...' works too) whose ``model`` is taken, ``model`` a model
            config; ``checkpoint`` a local file or a URL that mmengine knows.

    Raises:
        ConfigError: an unknown, missing or contradictory key.
        CheckpointError: the file is missing, damaged, unsafe, or does not fit in every tensor.
    """
    for mistake in teacher_mistakes(config):
        raise mistake
    return load_teacher(build_teacher_model(config), config)


def teacher_mistakes(config: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Yield everything that is wrong with the keys of a teacher config."""
    for key in config:
        if key not in TEACHER_KEYS:
            yield ConfigError(
                f'Expected keys {list(TEACHER_KEYS)} in teacher but got {key!r}.{did_you_mean(key, TEACHER_KEYS)}'
            )
    if ('cfg' in config) == ('model' in config):
        yield ConfigError(f'Expected either cfg or model in teacher but got {sorted(config)}. Give one of them.')
    if not config.get('checkpoint'):
        yield ConfigError(
            'Expected a checkpoint in teacher but got none. A random teacher teaches nothing: '
            "write teacher=dict(cfg=..., checkpoint='file.pth')."
        )


def load_teacher(module: nn.Module, config: Mapping[str, Any]) -> Teacher:
    """Load a teacher config's checkpoint into its model, strictly.

    Raises:
        CheckpointError: the file is missing, damaged, unsafe, or does not fit in every tensor.
    """
    path = local_file(config['checkpoint'])
    weights = state_dict_of(read_checkpoint(path, trust_checkpoint=config.get('trust_checkpoint')), str(path))
    load_strictly(module, weights, f'teacher checkpoint {config["checkpoint"]}')
    module.requires_grad_(False)
    return Teacher(
        module.eval(),
        str(config['checkpoint']),
        hash_file(path),
        tensors=len(module.state_dict()),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )


def build_teacher_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the model of a teacher config, with random weights; a distilled model teaches as its student."""
    if 'model' in config:
        return MODELS.build(student_config(config['model']))
    file = str(config['cfg'])
    if '::' not in file and not Path(file).is_file():
        raise ConfigError(f'Expected a teacher config file but {file} does not exist. Check teacher.cfg.')
    try:
        cfg = Config.fromfile(Config._get_cfg_path(file, '')[0] if '::' in file else file)
    except Exception as error:
        raise ConfigError(
            f'Expected the teacher config {file} to parse but got {type(error).__name__}: {error}. Check teacher.cfg.'
        ) from error
    model = student_config(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if 'default_scope' in cfg:
        model.setdefault('_scope_', cfg.default_scope)
    return MODELS.build(model)


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Load weights that must fit a model in every name and shape.

    ``num_batches_tracked``, absent from old files, may be missing.

    Raises:
        CheckpointError: lists what is missing, left over, or of another shape; the model is unchanged then.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith('num_batches_tracked')]
    extra = [key for key in weights if key not in own]
    shapes = [
        f'{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}'
        for key in own
        if key in weights and weights[key].shape != own[key].shape
    ]
    if missing or extra or shapes:
        found = sum(key in weights for key in own) - len(shapes)
        parts = [
            f'{len(items)} {what} (such as {", ".join(items[:3])})'
            for what, items in (('missing', missing), ('left over', extra), ('of another shape', shapes))
            if items
        ]
        raise CheckpointError(
            f'Expected {name} to fit the model in all {len(own)} tensors but {found} fit: {"; ".join(parts)}. '
            'Use the checkpoint that was trained with this model config, with the same classes.'
        )
    state = OrderedDict(weights)
    state._metadata = own._metadata  # type: ignore[attr-defined]  # today's names: nothing to convert
    module.load_state_dict(state, strict=False)
