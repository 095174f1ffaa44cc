"""Do the checkpoints that a training begins with fit its model?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from kdplugin.errors import CheckpointError
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.run_length import RunLength
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of


def check_start(found: Findings, config: Config, student: nn.Module) -> None:
    """The file of ``load_from`` has weights for the student; one that is resumed has all, and an optimizer."""
    file = config.get('load_from')
    if not isinstance(file, str) or '://' in file or not Path(file).expanduser().is_file():
        return  # a missing file is said by check_files
    content = read_checkpoint(Path(file).expanduser(), trust_checkpoint=config.get('trust_checkpoint'))
    weights = state_dict_of(content, file)
    fit = compare(student, weights)
    if config.get('resume'):
        _check_resumed(found, config, file, content, fit)
    else:
        _check_loaded(found, file, fit)


def compare(student: nn.Module, weights: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str], int]:
    """Return the names of tensors that are missing, of another shape, and left over, and how many fit."""
    own = student.state_dict()
    weights = {name.removeprefix('module.'): value for name, value in weights.items()}
    missing = [name for name in own if name not in weights and not name.endswith('num_batches_tracked')]
    shapes = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    left = [name for name in weights if name not in own]
    return missing, shapes, left, sum(name in weights for name in own) - len(shapes)


def _check_resumed(
    found: Findings,
    config: Config,
    file: str,
    content: Mapping[str, Any],
    fit: tuple[list[str], list[str], list[str], int],
) -> None:
    missing, shapes, left, _ = fit
    if missing or shapes or left:
        examples = (missing or shapes or left)[:3]
        found.error(
            'load_from',
            f'Expected {file} to be a checkpoint of this student but {len(missing)} tensors are missing, {len(shapes)} '
            f'of another shape and {len(left)} left over, such as {examples}. Resume with the config that trained it, '
            'or set resume=False.',
        )
    if 'optimizer' not in content:
        found.error(
            'load_from',
            f'Expected a training checkpoint to resume but {file} has no optimizer, weights alone. Set resume=False to '
            'begin with its weights.',
        )
    meta, length = content.get('meta') or {}, RunLength.of(config)
    if length is None or not isinstance(meta, Mapping):
        return
    done, end = meta.get('epoch' if length.by_epoch else 'iter'), length.end(length.by_epoch)
    if isinstance(done, int) and end is not None and done >= end:
        found.error(
            'load_from',
            f'Expected a checkpoint from within {length} but {file} is of {done}. Nothing is left to train: raise the '
            'length, or set resume=False.',
        )


def _check_loaded(found: Findings, file: str, fit: tuple[list[str], list[str], list[str], int]) -> None:
    missing, shapes, left, good = fit
    total = good + len(missing) + len(shapes)
    if good == 0:
        found.error(
            'load_from',
            f'Expected {file} to hold weights of the student but none of its {len(left)} tensors fits, such as '
            f'{left[:3]}. Give a checkpoint of this model.',
        )
    elif good < total:
        found.warning(
            'load_from',
            f'Expected weights for all {total} tensors of the student but {file} has {good}: {(missing + shapes)[:3]} '
            'begin anew. That is right for another number of classes, and for nothing else: check the file.',
        )


def checked_resume(found: Findings, config: Config, student: nn.Module) -> None:
    """Run ``check_start``; a file that cannot be read is an error."""
    try:
        check_start(found, config, student)
    except CheckpointError as error:
        found.error('load_from', error)
