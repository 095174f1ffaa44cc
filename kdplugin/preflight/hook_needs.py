"""Do hooks find what they act on: the data set, the model and the order of hooks that they were written for?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner.priority import Priority, get_priority

from kdplugin.distill.model_config import is_distillation, is_distiller
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import hooks_of, kind_of
from kdplugin.preflight.registries import find_type
from kdplugin.preflight.run_length import is_count


def check_hook_needs(found: Findings, config: Config) -> None:
    """What a hook changes is there."""
    model = config.get('model')
    for path, hook in hooks_of(config):
        kind = kind_of(hook)
        if kind == 'YOLOXModeSwitchHook':
            _check_mixing(found, path, config)
        elif kind == 'MeanTeacherHook' and isinstance(model, Mapping) and is_distillation(model):
            found.error(
                path,
                'Expected a semi-supervised detector for MeanTeacherHook but got a distillation, whose teacher is '
                'frozen. The training would stop at its beginning: remove the hook.',
            )
        elif kind == 'SavePretrainedHook' and isinstance(model, Mapping) and is_distiller(model):
            found.error(
                path,
                'Expected a model of diffusers for SavePretrainedHook but got kdplugin.Distiller, whose student has no '
                'save_pretrained. The training would stop at its beginning: remove the hook.',
            )
        if 'CheckpointHook' in kind:
            _check_file_names(found, path, hook.get('filename_tmpl'))
        if 'CheckpointHook' in kind and not is_count(hook.get('max_keep_ckpts', -1)):
            found.error(
                f'{path}.max_keep_ckpts',
                f'Expected a whole number but got {hook["max_keep_ckpts"]!r}. Write max_keep_ckpts=3; -1 keeps all.',
            )


def _check_file_names(found: Findings, path: str, template: Any) -> None:
    """Checkpoints have names of their own: each would take the place of the one before it."""
    if template is None:
        return
    try:
        different = str(template).format(1) != str(template).format(2)
    except (KeyError, IndexError, ValueError):
        different = False
    if not different:
        found.error(
            f'{path}.filename_tmpl',
            f"Expected one {{}} for the number of the epoch or iteration but got {template!r}. Write 'epoch_{{}}.pth'.",
        )


def _check_mixing(found: Findings, path: str, config: Config) -> None:
    loader = config.get('train_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    if not isinstance(dataset, Mapping) or not dataset.get('type'):
        return
    kind = find_type(dataset['type'], (DATASETS,), dataset.get('_scope_'))
    if kind is not None and not hasattr(kind, 'update_skip_type_keys'):
        found.error(
            path,
            f'Expected MultiImageMixDataset as train_dataloader.dataset for YOLOXModeSwitchHook but got '
            f'{kind_of(dataset)}. The training would stop where the hook acts: remove it, or use PipelineSwitchHook.',
        )


def check_average_order(found: Findings, config: Config) -> None:
    """An average is swapped back before the checkpoint is written, so that what was measured is what is kept."""
    hooks = list(hooks_of(config))
    savers = [_priority(hook, Priority.VERY_LOW.value) for _, hook in hooks if 'CheckpointHook' in kind_of(hook)]
    first = min((one for one in savers if one is not None), default=Priority.VERY_LOW.value)
    for path, hook in hooks:
        own, written = _priority(hook, Priority.NORMAL.value), hook.get('priority', 'NORMAL')
        if kind_of(hook) == 'EMAHook' and own is not None and own >= first:
            found.warning(
                f'{path}.priority',
                f'Expected EMAHook before CheckpointHook, with a number below {first}, but got {written!r}. '
                'The best checkpoint would hold weights that were not measured: leave priority out.',
            )


def _priority(hook: Mapping[str, Any], default: int) -> int | None:
    """Return the number of a hook's priority, None if there is no such one."""
    try:
        return int(get_priority(hook.get('priority', default)))
    except (ValueError, TypeError, KeyError):
        return None
