"""The top of a config: keys that the Runner reads, what they hold, and keys of older or other projects."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from kdplugin.distill.model_config import is_distiller, learns_velocities
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.recipe_change import bases_of

SEQUENCE = (list, tuple)
KINDS: dict[str, tuple[type, ...]] = {
    'model': (Mapping,),
    'train_dataloader': (Mapping,), 'val_dataloader': (Mapping,), 'test_dataloader': (Mapping,),
    'train_cfg': (Mapping,), 'val_cfg': (Mapping,), 'test_cfg': (Mapping,),
    'optim_wrapper': (Mapping,), 'param_scheduler': (Mapping, *SEQUENCE), 'auto_scale_lr': (Mapping,),
    'val_evaluator': (Mapping, *SEQUENCE), 'test_evaluator': (Mapping, *SEQUENCE),
    'default_hooks': (Mapping,), 'custom_hooks': SEQUENCE, 'data_preprocessor': (Mapping,),
    'load_from': (str,), 'resume': (bool, str), 'launcher': (str,), 'env_cfg': (Mapping,), 'log_processor': (Mapping,),
    'log_level': (str, int), 'visualizer': (Mapping,), 'default_scope': (str,), 'randomness': (Mapping,),
    'experiment_name': (str,), 'work_dir': (str,), 'model_wrapper_cfg': (Mapping,), 'find_unused_parameters': (bool,),
    'runner_type': (str, type), 'sync_bn': (str,), 'compile': (bool, Mapping), 'strategy': (Mapping,),
    'activation_checkpointing': (str, *SEQUENCE), 'efficient_conv_bn_eval': (str, *SEQUENCE),
    'trust_checkpoint': (bool,), 'custom_imports': (Mapping,), 'tta_model': (Mapping,), 'tta_pipeline': SEQUENCE,
}  # fmt: skip
"""Keys that a Runner, or this project's tools, read, and what they may hold besides None."""

LOOPS = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
"""Keys that a Runner wants together or not at all."""

OLD_KEYS = {
    'data': 'train_dataloader, val_dataloader and test_dataloader',
    'runner': 'train_cfg',
    'lr_config': 'param_scheduler',
    'optimizer': 'optim_wrapper=dict(optimizer=...)',
    'optimizer_config': 'optim_wrapper=dict(clip_grad=...)',
    'checkpoint_config': 'default_hooks=dict(checkpoint=...)',
    'log_config': 'default_hooks=dict(logger=...) and visualizer',
    'evaluation': 'train_cfg=dict(val_interval=...) and val_evaluator',
    'fp16': "optim_wrapper=dict(type='AmpOptimWrapper')",
    'total_epochs': 'train_cfg=dict(max_epochs=...)',
    'resume_from': 'resume=True and load_from',
    'seed': 'randomness=dict(seed=...)',
}
"""Keys of mmdet 2 and mmseg 0.x, and what has come in their place."""
OLD_MEANS_NOTHING = ('optimizer', 'data', 'runner', 'seed', 'fp16')
"""Of these, names that configs of today use for variables of their own; they count with a value that only the old
meaning has."""

_NEW_MODEL = 'model=dict(_delete_=True, type=...)'
RAZOR_TYPES = ('SingleTeacherDistill', 'FpnTeacherDistill', 'OverhaulFeatureDistillation', 'SelfDistill', 'DAFLDistill')
RAZOR_KEYS = (
    'architecture', 'distiller', 'teacher_ckpt', 'teacher_trainable', 'student_recorders', 'teacher_recorders',
    'loss_forward_mappings', 'distill_losses', 'connectors', 'student_trainable', 'calculate_student_loss',
)  # fmt: skip
RAZOR_LOSSES = (
    'ChannelWiseDivergence', 'KLDivergence', 'FBKDLoss', 'DistanceWiseRKD', 'AngleWiseRKD', 'ABLoss', 'OFDLoss',
    'ActivationLoss', 'OnehotLikeLoss', 'InformationEntropyLoss', 'CRDLoss', 'FTLoss', 'ATLoss', 'WSLD',
)  # fmt: skip
"""Types, keys and losses of MMRazor's distillation."""


def check_containers(found: Findings, config: Config) -> None:
    """Every key that is read holds the kind of value that is read from it."""
    for key, kinds in KINDS.items():
        value = config.get(key)
        if value is None or isinstance(value, kinds):
            continue
        names = ' or '.join(dict.fromkeys(_name(kind) for kind in kinds))
        found.error(key, f'Expected {key} to be a {names} but got {_short(value)}. Write a {_name(kinds[0])}.')
    for key in ('train_dataloader', 'val_dataloader', 'optim_wrapper'):
        inner = {'optim_wrapper': 'optimizer'}.get(key, 'dataset')
        value = config.get(key)
        if isinstance(value, Mapping) and inner in value and not isinstance(value[inner], Mapping):
            found.error(
                f'{key}.{inner}', f'Expected a dict but got {_short(value[inner])}. Write {inner}=dict(type=...).'
            )


def _name(kind: type) -> str:
    return {Mapping: 'dict', str: 'text', list: 'list', tuple: 'list', bool: 'bool', int: 'number'}.get(kind, 'class')


def _short(value: Any) -> str:
    text = f'{type(value).__name__} {value!r}'
    return text if len(text) <= 80 else f'{text[:77]}...'


def check_near_names(found: Findings, config: Config) -> None:
    """No key at the top is a misspelt one of the Runner, which would go unread."""
    known = [*KINDS, *(key for keys in LOOPS for key in keys)]
    for key in config:
        if key in known or key in OLD_KEYS or not isinstance(config[key], Mapping | list | tuple | str | bool):
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.88)
        if near and (near[0] not in config or len(near[0]) >= len(key)) and not _is_plain_variable(key, near[0]):
            found.error(
                key,
                f'Expected a key that the Runner reads but got {key!r}, which nobody does. Did you mean {near[0]!r}?',
            )


def _is_plain_variable(key: str, near: str) -> bool:
    """Tell names such as 'train_dataset' or 'test_cfgs', made from others by whole words, from misspelt ones."""
    if key == f'{near}s':
        return True
    words, others = key.split('_'), near.split('_')
    if len(words) != len(others):
        return not difflib.SequenceMatcher(None, key.replace('_', ''), near.replace('_', '')).ratio() > 0.95
    different = [(one, other) for one, other in zip(words, others, strict=True) if one != other]
    return any(difflib.SequenceMatcher(None, one, other).ratio() < 0.7 for one, other in different)


def check_loops(found: Findings, config: Config) -> None:
    """A loop has all it needs: data, its settings, and an optimizer or a metric."""
    for keys in LOOPS:
        given = [key for key in keys if config.get(key) is not None]
        lacking = [key for key in keys if key not in given]
        if given and lacking:
            found.error(
                lacking[0],
                f'Expected {", ".join(keys)} together but got no {" and no ".join(lacking)}. Add what is missing, or '
                f'set {" and ".join(f"{key}=None" for key in given)}.',
            )
    if not any(config.get(key) is not None for key in LOOPS[0]):
        found.error(
            'train_cfg', 'Expected train_dataloader, train_cfg and optim_wrapper but got none. There is no training.'
        )
    elif not any(config.get(key) is not None for key in LOOPS[1]) and not _has_no_metric(config):
        found.warning('val_cfg', 'Expected a validation but got none. Nobody will see how good the student becomes.')


def _has_no_metric(config: Config) -> bool:
    """Tell whether the model is one that no validation loop can measure, as one that learns velocities."""
    model = config.get('model')
    return isinstance(model, Mapping) and learns_velocities(model)


def check_old_keys(found: Findings, config: Config) -> None:
    """There are no keys of mmdet 2 or mmseg 0.x, which nobody reads any more."""
    for key, now in OLD_KEYS.items():
        value = config.get(key)
        if value is None or (key in OLD_MEANS_NOTHING and not _is_old(key, value, config)):
            continue
        found.error(key, f'Expected a config for mmengine but got {key!r}, a key of older versions. Write {now}.')


def _is_old(key: str, value: Any, config: Config) -> bool:
    if not isinstance(value, Mapping):
        return False
    if key == 'fp16':
        return 'amp' not in str((config.get('optim_wrapper') or {}).get('type')).lower()
    if key == 'data':
        return 'samples_per_gpu' in value or ('train' in value and config.get('train_dataloader') is None)
    return 'type' in value and config.get({'optimizer': 'optim_wrapper', 'runner': 'train_cfg'}[key]) is None


def check_razor_keys(found: Findings, config: Config) -> None:
    """The model is not MMRazor's."""
    for path, key in _razor_keys(config.get('model'), 'model'):
        found.error(path, razor_message(key, config))


def razor_message(what: str, config: Config) -> str:
    """Return what is said of a key or type of MMRazor."""
    return (
        f'Expected a kdplugin.Distiller but got {what} of MMRazor. Run python tools/migrate_mmrazor.py '
        f'{config.filename or "CONFIG"} NEW_CONFIG, which writes the same recipe for kdplugin.'
    )


def _razor_keys(model: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(model, Mapping):
        return
    kind = str(getattr(model.get('type'), '__name__', model.get('type')))
    razor = kind.rpartition('.')[2] in RAZOR_TYPES or kind.startswith('mmrazor.')
    if razor:
        yield f'{path}.type', f'the type {kind!r}'
    for key in RAZOR_KEYS:
        if key in model and (key != 'teacher_ckpt' or razor or is_distiller(model)):  # mmdet's LAD has it too
            yield f'{path}.{key}', f'the key {key!r}'
    for name, pair in (model.get('pairs') or {}).items() if isinstance(model.get('pairs'), Mapping) else ():
        for key in ('recorder', 'preds_S', 'preds_T', 'from_student', 'record_idx', 'data_idx'):
            if isinstance(pair, Mapping) and key in pair:
                yield f'{path}.pairs.{name}.{key}', f'the key {key!r}'
        loss = pair.get('loss') if isinstance(pair, Mapping) else None
        kind = str(loss.get('type')) if isinstance(loss, Mapping) else ''
        if kind.startswith('mmrazor.') or kind in RAZOR_LOSSES:
            yield f'{path}.pairs.{name}.loss.type', f'the loss {kind!r}'


def _inherits_distiller(config: Config) -> bool:
    """Tell whether a base is a distillation already, so that what is set beside the student is meant for it."""
    models = []
    for base in bases_of(str(config.filename)) if config.filename else ():
        with contextlib.suppress(Exception):  # said where the config is read
            models.append(Config.fromfile(base).get('model'))
    return any(isinstance(model, Mapping) and is_distiller(model) for model in models)


def check_leftovers(found: Findings, config: Config) -> bool:
    """The Distiller does not hold what it inherited from the student's recipe; True if it does."""
    model = config.get('model')
    if not isinstance(model, Mapping) or not is_distiller(model) or not isinstance(model.get('student'), Mapping):
        return False
    left = [key for key in model if key in model['student'] and key not in ('type', 'data_preprocessor')]
    if left:
        cure = f'model=dict(student=dict({left[0]}=...))' if _inherits_distiller(config) else _NEW_MODEL
        found.error(
            'model',
            f'Expected the keys of kdplugin.Distiller alone but got {left} of the inherited model besides. Write '
            f'{cure}.',
        )
    if is_distiller(model['student']):
        found.error(
            'model.student',
            'Expected the model of a plain recipe as student but got another kdplugin.Distiller. Write '
            'student=_base_.model.student, or inherit the plain recipe.',
        )
    return bool(left)
