"""What of an MMRazor recipe belongs to the Runner: data, schedule, loops and hooks, apart from the model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from kdplugin.errors import ConfigError
from kdplugin.migration.config_text import plain
from kdplugin.migration.notes import Note

READ = (
    *(name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'model', 'cfg')),
    'runner_type',
    'model_wrapper_cfg',
    'activation_checkpointing',
    'sync_bn',
    'compile',
    'tta_model',
    'tta_pipeline',
)
"""Top-level keys that the Runner or the tools of mmdet and mmseg read, the model aside."""

UNUSED = {
    'find_unused_parameters': (
        'not needed: the teacher is no part of the model that is trained. Set it again if the plain student needs it.'
    ),
    'optimizer_config': 'mmengine does not read it. Clip gradients with optim_wrapper=dict(clip_grad=dict(...)).',
}

VAL_LOOP = 'SingleTeacherDistillValLoop'
STOP_HOOK = 'StopDistillHook'
PICTURES = 'RazorVisualizationHook'


def runner_settings(config: Config, base: Mapping[str, Any] | None, notes: list[Note]) -> dict[str, Any]:
    """Return the Runner's part of a recipe without what MMRazor alone knows.

    Args:
        config: the MMRazor config.
        base: the student's own recipe, whose hook stands in for one of MMRazor's.
        notes: appended to.
    """
    settings = {key: plain(config[key]) for key in READ if key in config}
    _plain_loop(settings, notes)
    _plain_hooks(settings, base or {}, notes)
    for key, why in UNUSED.items():
        if key in config:
            notes.append(Note('left out', key, why))
    rest = sorted(key for key in config if key not in (*READ, *UNUSED, 'model') and key not in (base or {}))
    if rest:
        notes.append(Note('left out', ', '.join(rest), 'names of the config that neither Runner nor tools read.'))
    return settings


def stop_epoch(config: Config) -> int | None:
    """Return after how many epochs a StopDistillHook ends the distillation, None if there is no such hook."""
    for hook in (*dict(config.get('default_hooks') or {}).values(), *(config.get('custom_hooks') or [])):
        if hook and bare(hook) == STOP_HOOK:
            return int(hook['stop_epoch'])
    return None


def bare(entry: Mapping[str, Any]) -> str:
    """Return a type's name without MMRazor's scope."""
    return str(entry.get('type')).removeprefix('mmrazor.')


def _is_foreign(entry: Mapping[str, Any]) -> bool:
    mine = entry.get('_scope_') == 'mmrazor' or str(entry.get('type')).startswith('mmrazor.')
    return mine or bare(entry) in (VAL_LOOP, STOP_HOOK, PICTURES)


def _plain_loop(settings: dict[str, Any], notes: list[Note]) -> None:
    for key in ('train_cfg', 'val_cfg', 'test_cfg'):
        loop = settings.get(key)
        if not loop or not _is_foreign(loop):
            continue
        if bare(loop) != VAL_LOOP:
            raise ConfigError(f'Expected a loop of mmengine in {key} but got {loop["type"]}. It has no counterpart.')
        left = {name: value for name, value in loop.items() if name not in ('_delete_', '_scope_', 'type')}
        settings[key] = dict(type='ValLoop', **left)
        message = (
            'validates the student alone, MMRazor the teacher too each time. Test the teacher once: tools/test.py.'
        )
        notes.append(Note('changed', key, message))


def _plain_hooks(settings: dict[str, Any], base: Mapping[str, Any], notes: list[Note]) -> None:
    named = settings.get('default_hooks') or {}
    for name, hook in list(named.items()):
        if hook and _is_foreign(hook):
            _tell_hook(hook, f'default_hooks.{name}', notes)
            own = (base.get('default_hooks') or {}).get(name)
            if own is None:
                del named[name]
            else:
                named[name] = plain(own)
    listed = settings.get('custom_hooks') or []
    for hook in listed:
        if _is_foreign(hook):
            _tell_hook(hook, 'custom_hooks', notes)
    if listed:
        settings['custom_hooks'] = [hook for hook in listed if not _is_foreign(hook)]


def _tell_hook(hook: Mapping[str, Any], where: str, notes: list[Note]) -> None:
    kind = bare(hook)
    if kind == STOP_HOOK:
        message = f'{kind}(stop_epoch={hook["stop_epoch"]}) is stop_after with by_epoch of each pair.'
        notes.append(Note('converted', where, message))
    elif kind == PICTURES:
        notes.append(Note('left out', where, f'{kind} draws feature maps and does not train.'))
    else:
        notes.append(Note('no counterpart', where, f'{kind} is a hook of MMRazor.'))
