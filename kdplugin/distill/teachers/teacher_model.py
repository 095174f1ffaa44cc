"""The model of a teacher config, and loading that leaves no tensor out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from kdplugin.checkpoint_schemes import local_file
from kdplugin.config_files import parse
from kdplugin.distill.model_config import student_config
from kdplugin.errors import CheckpointError, ConfigError
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of


def build_teacher_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the model of a teacher config, with random weights; a distilled model teaches as its student."""
    return MODELS.build(teacher_model_config(config))


def teacher_model_config(config: Mapping[str, Any]) -> Any:
    """Return the model config of a teacher config, with the preprocessor and the default scope of its file.

    Raises:
        ConfigError: the file is missing or does not parse.
    """
    if 'model' in config:
        return student_config(config['model'])
    file = str(config['cfg'])
    if '::' not in file and not Path(file).is_file():
        raise ConfigError(f'Expected a teacher config file but {file} does not exist. Check teacher.cfg.')
    try:
        cfg = parse(file)
    except Exception as error:
        raise ConfigError(
            f'Expected the teacher config {file} to parse but got {type(error).__name__}: {error}. Check teacher.cfg.'
        ) from error
    model = student_config(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if 'default_scope' in cfg:
        model.setdefault('_scope_', cfg.default_scope)
    return model


def weights_of(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a teacher config's checkpoint.

    Raises:
        CheckpointError: the file is missing, damaged or unsafe.
    """
    path = local_file(config['checkpoint'])
    content = read_checkpoint(
        path, trust_checkpoint=config.get('trust_checkpoint'), mmap=True
    )  # of a large file, a part
    return state_dict_of(content, str(path))


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
