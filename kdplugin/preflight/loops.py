"""Are the loops of the right kind, and do they validate and save every so often rather than all the time?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, TestLoop, ValLoop

from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.registries import find_type
from kdplugin.preflight.run_length import RunLength, is_count, is_whole

TRAIN = (EpochBasedTrainLoop, IterBasedTrainLoop)
ROLES: dict[str, tuple[tuple[type, ...], tuple[type, ...], str]] = {
    'train_cfg': (TRAIN, (ValLoop, TestLoop), 'a training loop'),
    'val_cfg': ((ValLoop,), (*TRAIN, TestLoop), 'ValLoop'),
    'test_cfg': ((TestLoop,), TRAIN, 'TestLoop'),
}
"""What a loop of the config is, what it is not, and what to write."""
OFTEN = 5
"""Iterations between validations that are meant as epochs."""
MANY = 100
"""Times that nobody validates or saves so often in a training."""


def check_loop_roles(found: Findings, config: Config) -> None:
    """Training, validation and test have loops of their own kind."""
    for key, (right, wrong, name) in ROLES.items():
        loop = config.get(key)
        kind = find_type(loop['type'], (LOOPS,), None) if isinstance(loop, Mapping) and loop.get('type') else None
        if isinstance(kind, type) and issubclass(kind, wrong) and not issubclass(kind, right):
            cure = "type='EpochBasedTrainLoop' or 'IterBasedTrainLoop'" if key == 'train_cfg' else f'type={name!r}'
            found.error(
                f'{key}.type',
                f'Expected {name} but got {kind_of(loop)}. The run fails, or nothing that waits for a validation acts: '
                f'write {cure}.',
            )


def check_intervals(found: Findings, config: Config) -> None:
    """Changes of the interval are pairs, and a training in iterations does not validate or save after each."""
    loop, length = config.get('train_cfg'), RunLength.of(config)
    if not isinstance(loop, Mapping):
        return
    _check_changes(found, loop.get('dynamic_intervals'))
    iters = length.iters if length is not None else None
    if iters is None:
        return
    interval = loop.get('val_interval', 1000)
    if config.get('val_cfg') is not None and _is_often(interval, iters):
        found.warning(
            'train_cfg.val_interval',
            f'Expected some validations in {length} but got one every {interval} iterations. If that is meant in '
            f'epochs, write the iterations of {interval}; {max(1, iters // 10)} makes ten.',
        )
    for path, hook in hooks_of(config):
        interval = hook.get('interval', -1)
        if 'CheckpointHook' in kind_of(hook) and hook.get('by_epoch', True) is False and _is_often(interval, iters):
            found.warning(
                f'{path}.interval',
                f'Expected some checkpoints in {length} but got one every {interval} iterations. If that is meant in '
                f'epochs, write the iterations of {interval}; {max(1, iters // 10)} makes ten.',
            )


def _is_often(interval: Any, iters: int) -> bool:
    return is_whole(interval) and 0 < interval <= OFTEN and iters // interval >= MANY


def _check_changes(found: Findings, changes: Any) -> None:
    if changes is None:
        return
    pairs = isinstance(changes, list) and all(
        isinstance(one, tuple) and len(one) == 2 and all(map(is_count, one)) for one in changes
    )
    if not pairs:
        found.error(
            'train_cfg.dynamic_intervals',
            f'Expected a list of pairs, from when on and how often, but got {changes!r}. Write [(8, 1)] to validate '
            'after each epoch from the eighth on.',
        )
