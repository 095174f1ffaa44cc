"""The optimizer as its config describes it: numbers that are numbers, a rate that fits the batch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.hook_action import kind_of
from kdplugin.preflight.run_length import is_count

LARGEST = {'SGD': 1.0, 'Adam': 0.05, 'AdamW': 0.05}
"""Learning rates above which nobody trains."""
DECAYS = {'SGD': 0.05, 'AdamW': 0.5}
"""Weight decays above which weights shrink faster than they learn."""
SMALLEST = 1e-3
"""Norm of a gradient that is cut to nothing."""
NUMBERS = ('lr', 'weight_decay', 'momentum', 'eps')
SCALER = ('init_scale', 'growth_factor', 'backoff_factor', 'growth_interval', 'enabled')
"""What torch's GradScaler takes."""
DTYPES = ('float16', 'bfloat16', 'float32', 'float64')


def optimizer_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the optimizer's config; None where there is none or several."""
    wrapper = config.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, Mapping) else None
    return optimizer if isinstance(optimizer, Mapping) else None


def check_optimizer(found: Findings, config: Config) -> None:
    """The optimizer has a rate, and numbers where it needs numbers."""
    wrapper, optimizer = config.get('optim_wrapper'), optimizer_of(config)
    if not isinstance(wrapper, Mapping):
        return
    if optimizer is None:
        if 'constructor' not in wrapper:
            found.error(
                'optim_wrapper.optimizer',
                "Expected an optimizer in optim_wrapper but got none. Write optimizer=dict(type='SGD', lr=...).",
            )
        return
    path = 'optim_wrapper.optimizer'
    for key in NUMBERS:
        value = optimizer.get(key)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf
        ):
            found.error(f'{path}.{key}', f'Expected a number >= 0 but got {value!r}. Write it without quotes.')
    if optimizer.get('maximize'):
        found.error(f'{path}.maximize', 'Expected losses to be made small but got maximize=True. Remove it.')
    betas = optimizer.get('betas')
    if betas is not None and not (isinstance(betas, list | tuple) and len(betas) in (2, 3)):
        found.error(f'{path}.betas', f'Expected two numbers but got {betas!r}. Write betas=(0.9, 0.999).')
    lr, kind = optimizer.get('lr'), kind_of(optimizer)
    if lr is None and kind in LARGEST:
        found.warning(f'{path}.lr', f'Expected a learning rate but got none. {kind} takes its own default: give lr.')
    elif isinstance(lr, int | float) and kind in LARGEST and (lr > LARGEST[kind] or lr == 0):
        found.warning(
            f'{path}.lr',
            f'Expected a learning rate above 0 and up to {LARGEST[kind]:g} for {kind} but got {lr:g}. Correct lr.',
        )
    _check_sizes(found, path, optimizer, kind)
    _check_wrapper(found, wrapper)
    _check_paramwise(found, wrapper, optimizer)


def _check_sizes(found: Findings, path: str, optimizer: Mapping[str, Any], kind: str) -> None:
    momentum, decay = optimizer.get('momentum'), optimizer.get('weight_decay')
    if isinstance(momentum, int | float) and momentum >= 1:
        found.error(
            f'{path}.momentum',
            f'Expected a momentum below 1 but got {momentum:g}. Steps would grow without end: write 0.9.',
        )
    most = DECAYS.get(kind)
    if most is not None and isinstance(decay, int | float) and decay > most:
        found.warning(
            f'{path}.weight_decay',
            f'Expected a weight decay up to {most:g} for {kind} but got {decay:g}. Weights would shrink to nothing: '
            f'write {"0.0001" if kind == "SGD" else "0.05"}.',
        )


def _check_wrapper(found: Findings, wrapper: Mapping[str, Any]) -> None:
    count = wrapper.get('accumulative_counts', 1)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        found.error('optim_wrapper.accumulative_counts', f'Expected a whole number >= 1 but got {count!r}. Correct it.')
    clip = wrapper.get('clip_grad')
    if clip is not None and not isinstance(clip, Mapping):
        found.error(
            'optim_wrapper.clip_grad', f'Expected a dict but got {clip!r}. Write dict(max_norm=35, norm_type=2).'
        )
    elif clip and not _is_positive(clip.get('max_norm', 1.0)):
        found.error(
            'optim_wrapper.clip_grad.max_norm',
            f'Expected a number > 0 but got {clip["max_norm"]!r}. Gradients are cut to it: 35 is usual for detectors.',
        )
    elif clip and clip.get('max_norm', 1.0) < SMALLEST:
        found.warning(
            'optim_wrapper.clip_grad.max_norm',
            f'Expected a norm that gradients have but got {clip["max_norm"]:g}. Nothing would learn: write 35 for a '
            'detector, or 0.1 to 1 for a transformer.',
        )
    elif clip and 'max_norm' not in clip and clip.get('type', 'norm') == 'norm':
        near = ' It is called max_norm.' if {'max_value', 'max', 'grad_clip'} & set(clip) else ' Add max_norm.'
        found.error('optim_wrapper.clip_grad', f'Expected max_norm but got {sorted(clip)}.{near}')


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _check_paramwise(found: Findings, wrapper: Mapping[str, Any], optimizer: Mapping[str, Any]) -> None:
    given = wrapper.get('paramwise_cfg')
    if not isinstance(given, Mapping):
        return
    keys = given.get('custom_keys')
    if keys is not None and not (isinstance(keys, Mapping) and all(isinstance(one, Mapping) for one in keys.values())):
        found.error(
            'optim_wrapper.paramwise_cfg.custom_keys',
            f"Expected a dict of dicts but got {keys!r}. Write {{'backbone': dict(lr_mult=0.1)}}.",
        )


def check_amp(found: Findings, config: Config) -> None:
    """Mixed precision is asked for in a way that works."""
    wrapper = config.get('optim_wrapper')
    if not isinstance(wrapper, Mapping):
        return
    if kind_of(wrapper) == 'ApexOptimWrapper' and find_spec('apex') is None:
        found.error(
            'optim_wrapper.type',
            "Expected the package apex for ApexOptimWrapper but it is not installed. Write type='AmpOptimWrapper'.",
        )
    dtype = wrapper.get('dtype')
    amp = 'Amp' in kind_of(wrapper) or 'AMP' in kind_of(wrapper)
    if not amp:
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            if key in wrapper:
                found.error(
                    f'optim_wrapper.{key}',
                    f"Expected type='AmpOptimWrapper' beside {key} but got {kind_of(wrapper)}. Set the type, or remove "
                    f'{key}.',
                )
        return
    if dtype is not None and dtype not in DTYPES:
        near = {'fp16': 'float16', 'bf16': 'bfloat16', 'half': 'float16', 'fp32': 'float32'}.get(str(dtype))
        cure = f' Did you mean {near!r}?' if near else ' Choose one.'
        found.error('optim_wrapper.dtype', f'Expected dtype of {list(DTYPES)} but got {dtype!r}.{cure}')
    scale = wrapper.get('loss_scale', 'dynamic')
    if not (scale == 'dynamic' or isinstance(scale, int | float | Mapping)) or isinstance(scale, bool):
        found.error(
            'optim_wrapper.loss_scale', f"Expected 'dynamic', a number or a dict but got {scale!r}. Correct it."
        )
    elif not isinstance(scale, str | Mapping) and not 0 < scale < math.inf:
        found.error('optim_wrapper.loss_scale', f'Expected a number > 0 but got {scale}. Write loss_scale=512.0.')
    for key in scale if isinstance(scale, Mapping) else ():
        if key not in SCALER:
            found.error(
                f'optim_wrapper.loss_scale.{key}',
                f'Expected keys {list(SCALER)} but got {key!r}.{did_you_mean(str(key), SCALER)} The training would '
                'stop at its beginning: correct it.',
            )
    if dtype in ('float32', 'float64'):
        found.warning(
            'optim_wrapper.dtype',
            f'Expected a half precision beside AmpOptimWrapper but got {dtype}, which changes nothing. Write '
            "'bfloat16', or type='OptimWrapper'.",
        )
    if dtype == 'float16' and wrapper.get('loss_scale') == 1:
        found.warning(
            'optim_wrapper.loss_scale', "Expected a scaled loss in float16 but got 1. Write loss_scale='dynamic'."
        )


def check_batch_and_rate(found: Findings, config: Config, gpus: int | None) -> None:
    """The learning rate suits the batch of all GPUs together.

    Args:
        gpus: processes of the training, each with its own batch; None where nobody has said.
    """
    scaling, loader = config.get('auto_scale_lr'), config.get('train_dataloader')
    if not isinstance(scaling, Mapping):
        return
    base, enabled = scaling.get('base_batch_size'), bool(scaling.get('enable'))
    if not isinstance(scaling.get('enable', False), bool):
        found.error(
            'auto_scale_lr.enable',
            f'Expected True or False but got {scaling["enable"]!r}, which counts as {enabled}. Leave out the quotes.',
        )
    if not isinstance(base, int) or base <= 0:
        if enabled:
            found.error(
                'auto_scale_lr.base_batch_size',
                f'Expected the batch size that lr was chosen for but got {base!r}. Give base_batch_size.',
            )
        return
    own = loader.get('batch_size') if isinstance(loader, Mapping) else None
    if not isinstance(own, int) or own <= 0:
        return
    wrapper = config.get('optim_wrapper')
    steps = wrapper.get('accumulative_counts', 1) if isinstance(wrapper, Mapping) else 1
    steps = steps if is_count(steps) and steps > 0 else 1
    gathered = f' x {steps} accumulated' if steps > 1 else ''
    if enabled and steps > 1:
        found.warning(
            'auto_scale_lr.enable',
            f'Expected batches that are not accumulated but got accumulative_counts={steps}, which the scaling does '
            f'not count. The rate would be {steps} times too small: write base_batch_size={base / steps:g}, or scale '
            'lr by hand.',
        )
    if gpus is None:
        named = re.search(r'(\d+)xb\d+', str(config.filename or ''))
        found.note(
            'auto_scale_lr',
            f'lr is for batches of {base}: {base / own / steps:g} GPUs of {own}{gathered}'
            f'{f" (the name says {named[1]})" if named else ""}. Give --gpus to compare with yours.',
        )
    elif (batch := own * gpus * steps) != base and not enabled:
        factor = batch / base
        lr = (optimizer_of(config) or {}).get('lr')
        scaled = f' (lr={lr * factor:g})' if isinstance(lr, int | float) else ''
        found.warning(
            'auto_scale_lr',
            f'Expected batches of {base}, for which lr was chosen, but got {own} x {gpus} GPUs{gathered} = {batch}. '
            f'{"Multiply" if gathered else "Write auto_scale_lr.enable=True, or multiply"} lr by {factor:g}{scaled}.',
        )
