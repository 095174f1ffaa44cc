"""What a config file means to change in its _base_ files, and does not: mmengine has read those before."""

from __future__ import annotations

import ast
import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distillation
from kdplugin.preflight.config_keys import KINDS, OLD_KEYS, razor_message
from kdplugin.preflight.config_types import settings_at
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.recipe_change import bases_of

ENGINE_KEYS = ('student', 'teacher', 'teachers', 'pairs', 'frozen', 'task_weight')
"""Keys of a distiller."""
BELONGS = {
    'train_pipeline': 'train_dataloader.dataset.pipeline', 'val_pipeline': 'val_dataloader.dataset.pipeline',
    'test_pipeline': 'test_dataloader.dataset.pipeline', 'data_root': 'train_dataloader.dataset.data_root',
    'metainfo': 'train_dataloader.dataset.metainfo', 'classes': 'train_dataloader.dataset.metainfo.classes',
    'batch_size': 'train_dataloader.batch_size', 'num_workers': 'train_dataloader.num_workers',
    'max_epochs': 'train_cfg.max_epochs', 'max_iters': 'train_cfg.max_iters', 'val_interval': 'train_cfg.val_interval',
    'lr': 'optim_wrapper.optimizer.lr', 'weight_decay': 'optim_wrapper.optimizer.weight_decay',
    'num_classes': 'model.bbox_head.num_classes', 'crop_size': 'data_preprocessor.size',
    'ann_file': 'train_dataloader.dataset.ann_file',
}  # fmt: skip
"""Where what such a variable is meant to set is read."""
ALIASES = {
    'epochs': 'train_cfg=dict(max_epochs=...)', 'num_epochs': 'train_cfg=dict(max_epochs=...)',
    'learning_rate': 'optim_wrapper=dict(optimizer=dict(lr=...))', 'amp': "optim_wrapper=dict(type='AmpOptimWrapper')",
    'clip_grad': 'optim_wrapper=dict(clip_grad=...)', 'grad_clip': 'optim_wrapper=dict(clip_grad=...)',
    'accumulative_counts': 'optim_wrapper=dict(accumulative_counts=...)', 'hooks': 'custom_hooks=[...]',
    'scheduler': 'param_scheduler=[...]', 'lr_scheduler': 'param_scheduler=[...]',
    'save_best': 'default_hooks=dict(checkpoint=dict(save_best=...))', 'auto_resume': 'resume=True',
    'early_stopping': "custom_hooks=[dict(type='EarlyStoppingHook', ...)]", 'pretrained': 'load_from=...',
    'ema': "custom_hooks=[dict(type='EMAHook', ...)]", 'checkpoint': 'load_from=...',
    'workflow': 'train_cfg and val_cfg', 'gpu_ids': 'CUDA_VISIBLE_DEVICES before the command',
    'device': 'nothing: the Runner takes a GPU where there is one', 'temperature': 'it in the loss of a pair',
    'distill_weight': 'weight=... in each pair', 'kd_weight': 'weight=... in each pair',
}  # fmt: skip
"""What a setting is called elsewhere, and where it is read."""
PARTS_OF_MODELS = ('backbone', 'neck', 'bbox_head', 'decode_head', 'roi_head', 'rpn_head', 'auxiliary_head')
RAZOR_TOP = ('algorithm', 'distill_losses', 'distill_cfg', 'teacher_ckpt', 'teacher_config', 'distiller')
UNREAD_PARTS = ('teacher', 'teachers', 'pairs')
"""Parts of a distiller that a student's variables say nothing about."""
OWN_HOOKS = ('WeightProjectionHook', 'DistillationHook', 'SafeCheckpointHook')
SHOWN = 2


def check_variables(found: Findings, config: Config) -> None:
    """Every variable that a config file sets in place of one of its bases, or beside them, is read by somebody."""
    names = [*unread_names(config.filename), *_added(config)]
    if not names:
        return
    bases = _parsed(config.filename)
    for name in names:
        value = config.get(name)
        if name in RAZOR_TOP:
            found.error(name, razor_message(name, config))
            continue
        if name in ENGINE_KEYS and _may_distil(config, name):
            found.error(
                name,
                f'Expected {name} inside model but got it at the top of the config, where nobody reads it. Write '
                f'model=dict({name}=...).',
            )
            continue
        if _check_alias(found, config, name):
            continue
        base = next((one for one in bases if name in one), None)
        if base is not None:
            _check_override(found, config, base, name, value)
        elif bases and name in BELONGS:
            _check_new(found, config, name, value)


def _added(config: Config) -> Iterator[str]:
    """Yield the keys that came into a config after its file was read, so that no file reads them either."""
    if config.filename and Path(config.filename).is_file():
        with contextlib.suppress(Exception):
            own = Config.fromfile(config.filename)
            yield from (key for key in config if key not in own and key not in KINDS and key[0] != '_')


def _check_alias(found: Findings, config: Config, name: str) -> bool:
    """Say so where a variable is what others call a setting, or a key of the Runner with a slip; True if it is."""
    near = difflib.get_close_matches(name, KINDS, n=1, cutoff=0.9)
    if near:
        found.error(name, f'Expected a key that is read but got {name!r}. Did you mean {near[0]!r}?')
    elif name in OLD_KEYS:
        found.error(
            name, f'Expected a config for mmengine but got {name!r}, a key of older versions. Write {OLD_KEYS[name]}.'
        )
    elif name in ALIASES:
        found.warning(
            name,
            f'Expected {name} where it is read but got a variable of that name at the top of the config, which nobody '
            f'reads. Write {ALIASES[name]}.',
        )
    elif name in PARTS_OF_MODELS:
        student = is_distillation(config.get('model') or {})
        place = f'model=dict(student=dict({name}=...))' if student else f'model=dict({name}=...)'
        found.warning(
            name,
            f'Expected {name} inside model but got it at the top of the config, where nobody reads it. Write {place}.',
        )
    else:
        return False
    return True


def unread_names(file: str | None) -> Iterator[str]:
    """Yield the variables that a config file sets and does not read itself, as far as no Runner reads them."""
    if not file or not Path(file).is_file():
        return
    try:
        tree = ast.parse(Path(file).read_text())
    except (SyntaxError, ValueError, OSError):
        return
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for line in tree.body:
        for target in _targets(line):
            if isinstance(target, ast.Name) and target.id not in read | KINDS.keys() and target.id[0] != '_':
                yield target.id


def _targets(line: ast.stmt) -> list[ast.expr]:
    if isinstance(line, ast.AnnAssign):
        return [line.target] if line.value is not None else []
    return line.targets if isinstance(line, ast.Assign) else []


def _parsed(file: str | None) -> list[Config]:
    """Return the base files of a config, parsed; one that does not is said where the config itself is read."""
    configs: list[Config] = []
    for base in bases_of(str(file)):
        with contextlib.suppress(Exception):
            configs.append(Config.fromfile(base))
    return configs


def _may_distil(config: Config, name: str) -> bool:
    model = config.get('model')
    return isinstance(model, Mapping) and (is_distillation(model) or name == 'pairs')


def _check_override(found: Findings, config: Config, base: Config, name: str, value: Any) -> None:
    """The base's parts that were made with its variable do not keep the base's value."""
    theirs = _plain(base[name])
    if theirs == _plain(value):
        return
    inner = is_distillation(config.get('model') or {}) and not is_distillation(base.get('model') or {})
    ours = _read_parts(config)
    kept = []
    for path, read in _read_values(base):
        if read == theirs and _named_alike(name, path, theirs):
            place = re.sub(r'^model\.', 'model.student.', path) if inner else path
            if settings_at(ours, place) == theirs:
                kept.append(place)
    if not kept or any(read == _plain(value) and _named_alike(name, path, read) for path, read in _read_values(config)):
        return
    more = f' and {len(kept) - SHOWN} more' if len(kept) > SHOWN else ''
    found.warning(
        name,
        f'Expected {name} to be read but got a variable that nobody reads: {", ".join(kept[:SHOWN])}{more} keep the '
        f'value of {Path(base.filename).name}. {_cure(kept[0], name)}',
    )


def _check_new(found: Findings, config: Config, name: str, value: Any) -> None:
    """A variable that no base has is what the part that it is named after holds."""
    place = BELONGS[name]
    if place.startswith('model.') and is_distillation(config.get('model') or {}):
        place = place.replace('model.', 'model.student.', 1)
    key, plain = place.rpartition('.')[2], _plain(value)
    if any(path.rpartition('.')[2] == key and read == plain for path, read in _read_values(config)):
        return
    found.warning(
        name,
        f'Expected {key} where it is read but got the variable {name} at the top of the config, which nobody reads. '
        f'{_cure(place, name)}',
    )


def _read_parts(config: Config) -> dict[str, Any]:
    """Return what a Runner reads from a config."""
    return {key: _plain(config[key]) for key in KINDS if key in config}


def _read_values(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield every path below the keys that a Runner reads, and its value."""
    for key, value in _read_parts(config).items():
        yield from _below(value, key)


def _below(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            if not (path == 'model' and key in UNREAD_PARTS):
                yield from _below(inner, f'{path}.{key}')
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from _below(inner, f'{path}.{number}')


def _plain(value: Any) -> Any:
    """Return a value without scopes, lists in place of tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in dict(value).items() if key != '_scope_'}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _named_alike(name: str, path: str, value: Any) -> bool:
    """Tell whether a value at a path may come from a variable: a short one is equal to many others by chance."""
    if isinstance(value, dict | list) and len(str(value)) > 8:
        return True
    return bool(set(name.split('_')) & set(path.rpartition('.')[2].split('_')))


def _cure(path: str, name: str) -> str:
    parts = path.split('.')
    if any(part.isdigit() for part in parts):
        return f'Set {path} itself: write that list in full.'
    first, *inner = parts
    return f'Write {first}={"".join(f"dict({part}=" for part in inner)}{name}{")" * len(inner)}.'


def check_lost_hooks(found: Findings, config: Config) -> None:
    """A list of hooks that replaces that of the bases keeps what their training begins with."""
    hooks = config.get('custom_hooks')
    if not hooks or not config.filename or not Path(config.filename).is_file() or config.get('load_from'):
        return
    kept = {kind_of(hook) for _, hook in hooks_of(config)}
    for base in _parsed(config.filename):
        lost = [kind_of(hook) for _, hook in hooks_of(base) if kind_of(hook) in OWN_HOOKS]
        for kind in (one for one in lost if one not in kept):
            found.warning(
                'custom_hooks',
                f'Expected the {kind} of {Path(base.filename).name} but got a list without it, which takes the place '
                'of the inherited one. Write custom_hooks=[*_base_.custom_hooks, ...].',
            )
