"""Is every type of a config known where it stands, and does it take the keys that it is given?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import mmengine.registry as roots
from mmcv import ops
from mmengine.config import Config
from torch import nn

from kdplugin.distill.model_config import is_distillation
from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.config_tree import Typed, typed_below, typed_parts
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.registries import current_scope, find_type, installed, suggestion
from kdplugin.preflight.signatures import Accepted, accepted

NO_REGISTRY = (
    'nms', 'soft_nms', 'nms_match', 'nms_quadri', 'nms_rotated', 'batched_nms',
)  # fmt: skip
"""Types that mmcv and mmdet look up as functions by themselves."""
POPPED: dict[str, tuple[str, ...]] = {
    'hook': ('priority',),
    'parameter scheduler': ('convert_to_iter_based',),
    'optim_wrapper': ('constructor', 'paramwise_cfg'),
    'weight initializer': ('override', 'name', 'layer', 'bias', 'bias_prob'),
    'loop': ('by_epoch',),
}
"""Keys that mmengine takes out before it builds, by the name of the registry."""
OLD_NAMES = {
    'flip_ratio': 'prob', 'img_scale': 'scale', 'samples_per_gpu': 'batch_size', 'workers_per_gpu': 'num_workers',
    'img_prefix': 'data_prefix', 'img_dir': 'data_prefix', 'ann_dir': 'data_prefix', 'CLASSES': 'metainfo',
    'classes': 'metainfo', 'PALETTE': 'metainfo', 'to_rgb': 'bgr_to_rgb', 'multiscale_mode': 'RandomChoiceResize',
    'file_client_args': 'backend_args', 'warmup_iters': 'a LinearLR in param_scheduler', 'ratio_range': 'ratio_range',
    'split': 'ann_file', 'size_divisor': 'pad_size_divisor',
}  # fmt: skip
"""What mmdet 2 and mmseg 0.x called it, and what it is now."""
BELONGS = {
    'paramwise_cfg': 'optim_wrapper.paramwise_cfg', 'clip_grad': 'optim_wrapper.clip_grad',
    'grad_clip': 'optim_wrapper.clip_grad', 'loss_scale': "optim_wrapper (type='AmpOptimWrapper')",
    'accumulative_counts': 'optim_wrapper.accumulative_counts', 'lr': 'optim_wrapper.optimizer.lr',
    'batch_size': 'the dataloader', 'num_workers': 'the dataloader', 'val_interval': 'train_cfg.val_interval',
    'save_best': 'default_hooks.checkpoint.save_best', 'pretrained': "init_cfg=dict(type='Pretrained', checkpoint=...)",
}  # fmt: skip
"""Where a key belongs that stands elsewhere."""
PLAIN_DATASET = ('data_root', 'data_prefix', 'ann_file', 'metainfo', 'filter_cfg', 'img_suffix', 'seg_map_suffix')
"""Keys of a dataset that reads files, and of none that wraps one."""
BUILT_ALONE = ('transform', 'hook', 'metric', 'loop', 'optimizer', 'parameter scheduler', 'vis_backend')
"""Registries whose types get nothing but what the config says, and what is in ``HANDED``."""
HANDED: dict[str, tuple[str, ...]] = {
    'loop': ('runner', 'dataloader', 'evaluator'),
    'optimizer': ('params',),
    'parameter scheduler': ('optimizer', 'begin', 'end', 'param_name'),
    'vis_backend': ('save_dir',),
}


def check_types(found: Findings, config: Config) -> None:
    """Every type is known where it stands, and takes every key beside it."""
    for part in typed_parts(config):
        check_part(found, part)


def check_model_types(found: Findings, settings: Any, path: str) -> None:
    """The same for a model config that is not in the config itself, such as a teacher's."""
    for part in typed_below(settings, path, (roots.MODELS,)):
        check_part(found, part)


def check_part(found: Findings, part: Typed) -> None:
    """Check one typed dict."""
    kind = part.settings['type']
    if not isinstance(kind, str) and not callable(kind):
        found.error(part.path, f'Expected type to be a name or a class but got {kind!r}. Write the name of a type.')
        return
    if kind in NO_REGISTRY or (part.path == 'model' and is_distillation(part.settings) and _is_ours(part)):
        return
    resolved = find_type(kind, part.registries, part.scope)
    if resolved is None and part.role == 'roi_layer' and isinstance(kind, str):
        resolved = getattr(ops, kind, None)  # mmdet looks there by itself
    if resolved is None:
        _unknown_type(found, part, str(kind))
        return
    takes = accepted(resolved)
    names = takes.names | _extra(part, resolved)
    for key in part.settings:
        if key in names or key in ('type', '_scope_'):
            continue
        if not takes.open or _is_misspelt(str(key), names - set(part.settings)):
            found.error(f'{part.path}.{key}', _unknown_key(part, str(key), resolved, names))
    _missing(found, part, resolved, takes)


def _is_ours(part: Typed) -> bool:
    return find_type(part.settings['type'], part.registries, part.scope) is not None


def _unknown_type(found: Findings, part: Typed, kind: str) -> None:
    if not part.strict and not _looks_like_a_type(part):
        return
    scope = part.scope or current_scope()
    found.unsafe = found.unsafe or not installed(kind) or kind.count('.') > 1
    if not installed(kind):
        package = kind.partition('.')[0]
        found.error(
            f'{part.path}.type',
            f'Expected a package with a registry for {kind!r} but {package} is none here. Install it, or correct the '
            'prefix.',
        )
        return
    if part.role == 'nms':
        found.error(
            f'{part.path}.type',
            f'Expected a way to suppress boxes of {list(NO_REGISTRY)} but got {kind!r}.'
            f'{did_you_mean(kind, NO_REGISTRY)} Choose one.',
        )
        return
    registry = part.registries[0].name if part.strict else 'model'
    found.error(
        f'{part.path}.type',
        f'Expected a type that the {registry} registry of {scope} knows but got {kind!r}.'
        f'{suggestion(kind, part.registries[:1] if part.strict else (roots.MODELS, roots.TASK_UTILS), part.scope)} '
        'Correct the name, its prefix or default_scope, or import what registers it by custom_imports.',
    )


def _looks_like_a_type(part: Typed) -> bool:
    """Tell names of classes from words such as 'max' that some parts of models call a type, too."""
    kind = str(part.settings['type'])
    return '.' in kind or kind[:1].isupper() or part.role == 'nms'


def _extra(part: Typed, resolved: Any) -> set[str]:
    """Return keys that somebody takes out before the type sees them."""
    names: set[str] = set()
    if len(part.registries) == 1 or part.strict:
        for registry in part.registries:
            names |= set(POPPED.get(registry.name, ()))
    if isinstance(resolved, type) and issubclass(resolved, nn.Module):
        if part.role.endswith('norm_cfg') or 'Norm' in resolved.__name__ or 'BN' in resolved.__name__:
            names |= {'requires_grad', 'num_features', 'num_channels', 'eps'}
        if part.role in ('dcn', 'conv_cfg', 'sac'):
            names |= {'fallback_on_stride', 'use_deform'}
        if part.role == 'upsample_cfg':
            names.add('scale_factor')
        if part.role == 'cfg':
            names.add('postfix')
        if part.role == 'loss_cls':
            names |= {'bg_cls_weight', 'group_bg_cls_weight'}  # taken out by the heads of mmdet's DETR family
    return names


def _is_misspelt(key: str, names: Iterable[str]) -> bool:
    """Tell a slip of the finger from one of the keys that an open type takes for somebody else."""
    return bool(difflib.get_close_matches(key, [name for name in names if len(name) > 4], n=1, cutoff=0.9))


def _is_left_over(part: Typed, key: str, names: set[str] | frozenset[str]) -> bool:
    """Tell what stood in a dict before another type came into it: a dataset that is wrapped now, another loop."""
    if part.path == 'train_cfg':
        return (key == 'max_epochs' and 'max_iters' in part.settings) or (
            key == 'max_iters' and 'max_epochs' in part.settings
        )
    wraps = {'dataset', 'datasets'} & set(names) & set(part.settings)
    return part.role == 'dataset' and bool(wraps) and key in PLAIN_DATASET


def _unknown_key(part: Typed, key: str, resolved: Any, names: set[str] | frozenset[str]) -> str:
    name = getattr(resolved, '__name__', str(resolved))
    known = sorted(name for name in names if not name.startswith('_'))
    if _is_left_over(part, key, names):
        where = 'the dataset' if part.path.endswith('dataset') else part.path
        cure = f'It is left over from the inherited {part.path}: write _delete_=True in {where}.'
    elif key == '_delete_':
        cure = 'There is nothing to delete: no _base_ file has this part. Remove _delete_.'
    elif OLD_NAMES.get(key) in names:
        cure = f'It is called {OLD_NAMES[key]} now.'
    elif key in BELONGS and part.strict:
        cure = f'It belongs into {BELONGS[key]}.'
    elif did_you_mean(key, known):
        cure = f'{did_you_mean(key, known).strip()} Correct the name.'
    elif key in OLD_NAMES:
        cure = f'Older versions had it; now see {OLD_NAMES[key]}.'
    else:
        cure = 'Remove it, or correct the name.'
    shown = known if len(known) <= 16 else [*known[:16], '...']
    return f'Expected keys {shown} in {name} but got {key!r}. {cure}'


def _missing(found: Findings, part: Typed, resolved: Any, takes: Accepted) -> None:
    if not part.strict or len(part.registries) != 1 or part.registries[0].name not in BUILT_ALONE:
        return
    registry = part.registries[0].name
    lacking = sorted(takes.required - set(part.settings) - set(HANDED.get(registry, ())))
    if lacking:
        name = getattr(resolved, '__name__', str(resolved))
        found.error(part.path, f'Expected {", ".join(lacking)} in {name} but got none. Add it: {name} has no default.')


def settings_at(config: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, None where there is none."""
    value: Any = config
    for part in path.split('.'):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
