"""Does the optimizer build over the student, and does it agree with what is frozen and named?"""

from __future__ import annotations

import copy
import fnmatch
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from kdplugin.distill.distiller import ADAPTERS
from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.rates import optimizer_of
from kdplugin.preflight.run_length import RunLength
from kdplugin.preflight.work_dir import work_dir_of

STATES = {'SGD': 1, 'Adam': 2, 'AdamW': 2, 'RMSprop': 1, 'Lion': 1}
"""Numbers that an optimizer keeps for each parameter."""
BYTES = 4


def check_optimizer_builds(found: Findings, config: Config, student: nn.Module, frozen: Sequence[str]) -> None:
    """The optimizer builds, moves every trained parameter and no frozen one, and its custom keys name some.

    Args:
        frozen: names of frozen modules and parameters.
    """
    settings = config.get('optim_wrapper')
    if not isinstance(settings, Mapping):
        return
    settings = copy.deepcopy(settings)
    if kind_of(settings).startswith(('Amp', 'Apex', 'CPUAmp')):  # asks for a GPU that need not be here
        settings = {
            key: value for key, value in settings.items() if key not in ('loss_scale', 'dtype', 'use_fsdp', 'opt_level')
        }
        settings['type'] = 'OptimWrapper'
    _check_custom_keys(found, settings.get('paramwise_cfg'), student, frozen)
    wrapper = found.attempt(
        'optim_wrapper', 'the optimizer to build', build_optim_wrapper, student, Config(settings)._cfg_dict
    )
    optimizer = getattr(wrapper, 'optimizer', None)
    if optimizer is None:
        return
    moved = {id(value) for group in optimizer.param_groups for value in group['params']}
    idle = [name for name, value in student.named_parameters() if value.requires_grad and id(value) not in moved]
    if idle:
        found.warning(
            'optim_wrapper',
            f'Expected every trained parameter in the optimizer but {len(idle)} are not, such as {idle[:3]}. Freeze '
            'them, or correct paramwise_cfg.',
        )
    still = [
        name
        for group in optimizer.param_groups
        if group.get('lr') == 0
        for name, value in student.named_parameters()
        if any(value is one for one in group['params'])
    ]
    if still:
        found.note(
            'optim_wrapper', f'{len(still)} parameters have a rate of 0, such as {still[:3]}; frozen= rests them.'
        )


def _check_custom_keys(found: Findings, paramwise: Any, student: nn.Module, frozen: Sequence[str]) -> None:
    keys = paramwise.get('custom_keys') if isinstance(paramwise, Mapping) else None
    names = [name for name, _ in student.named_parameters()]
    for key, chosen in keys.items() if isinstance(keys, Mapping) else ():
        path = f'optim_wrapper.paramwise_cfg.custom_keys.{key}'
        if ADAPTERS in str(key).split('.'):  # they are made later
            _check_adapters(found, path, chosen)
            continue
        matched = [name for name in names if str(key) in name]
        if not matched:
            modules = [name for name, _ in student.named_modules() if name]
            found.warning(
                path,
                f'Expected a part of parameter names but got {key!r}, which is in none.'
                f'{did_you_mean(str(key), modules)} It has no effect: correct or remove it.',
            )
        elif all(_is_frozen(name, frozen) for name in matched):
            found.warning(
                path,
                f'Expected parameters that are trained but {key!r} names frozen ones alone. Remove it, or do not '
                'freeze them.',
            )


def _check_adapters(found: Findings, path: str, settings: Any) -> None:
    if isinstance(settings, Mapping) and settings.get('lr_mult') == 0:
        found.warning(
            path,
            'Expected adapters that learn but got lr_mult=0. They would stay random projections: leave it out.',
        )


def _is_frozen(name: str, frozen: Sequence[str]) -> bool:
    return any(name == one or name.startswith(f'{one}.') or fnmatch.fnmatchcase(name, one) for one in frozen)


def checkpoint_bytes(config: Config, student: nn.Module) -> int:
    """Return the size that a training checkpoint of a student will have, in bytes."""
    values = list(student.parameters())
    total = sum(value.numel() for value in values) + sum(value.numel() for value in student.buffers())
    trained = sum(value.numel() for value in values if value.requires_grad)
    states = STATES.get(kind_of(optimizer_of(config) or {}), 2)
    averaged = any(kind_of(hook) == 'EMAHook' or 'EMA' in kind_of(hook) for _, hook in hooks_of(config))
    return BYTES * (total * (2 if averaged else 1) + trained * states)


def checkpoints_to_come(config: Config) -> int | None:
    """Return how many checkpoints a training keeps at once, with the one that is being written; None if unknown."""
    hook = next((hook for _, hook in hooks_of(config) if 'CheckpointHook' in kind_of(hook)), {'interval': 1})
    best = hook.get('save_best')
    more = 1 + (len(best) if isinstance(best, list | tuple) else bool(best))
    keep, length = hook.get('max_keep_ckpts', -1), RunLength.of(config)
    if isinstance(keep, int) and keep > 0:
        return keep + more
    end = length.end(bool(hook.get('by_epoch', True))) if length is not None else None
    interval = hook.get('interval', -1)
    if end is None or not isinstance(interval, int) or interval <= 0:
        return None
    return end // interval + more


def check_space(found: Findings, config: Config, student: nn.Module) -> None:
    """The disk of the work dir has room for the checkpoints to come."""
    folder = work_dir_of(config)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    number, size = checkpoints_to_come(config), checkpoint_bytes(config, student)
    if number is None:
        found.note('work_dir', f'a checkpoint will have {gigabytes(size)}; how many are kept is not known.')
        return
    free = shutil.disk_usage(Path(folder)).free
    if number * size > free:
        found.error(
            'work_dir',
            f'Expected room for {number} checkpoints of {gigabytes(size)} but {folder} has {gigabytes(free)} left. Set '
            'default_hooks.checkpoint.max_keep_ckpts, or choose another work dir.',
        )
    else:
        found.note('work_dir', f'{number} checkpoints of {gigabytes(size)} at most, {gigabytes(free)} are free.')


def gigabytes(size: int) -> str:
    """Write a number of bytes for a person.

    Example:
        >>> gigabytes(2_500_000_000), gigabytes(3_000_000)
        ('2.5 GB', '3 MB')
    """
    return f'{size / 1e9:.1f} GB' if size >= 1e8 else f'{size / 1e6:.0f} MB'
