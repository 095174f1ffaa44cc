"""Keys that are handed on: to torch's functions that clip gradients, to the constructor that makes groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from kdplugin.module_paths import did_you_mean
from kdplugin.preflight.findings import Findings
from kdplugin.preflight.rates import optimizer_of
from kdplugin.preflight.registries import find_type
from kdplugin.preflight.signatures import accepted, keys_read

CLIPPERS = {'norm': clip_grad_norm_, 'value': clip_grad_value_}
RENAMED = {('value', 'max_norm'): 'clip_value', ('norm', 'clip_value'): 'max_norm'}
DEFAULT = 'DefaultOptimWrapperConstructor'
LAYER_DECAY = {'layer_decay_rate': 'LayerDecayOptimizerConstructor'} | dict.fromkeys(
    ('decay_rate', 'decay_type', 'num_layers'), 'LearningRateDecayOptimizerConstructor'
)
"""Keys that one constructor alone reads."""
LARGEST = 100
"""Factor of a rate above which nobody trains."""
OLD_MULTS = {'wd_mult': 'decay_mult'}
"""Keys that recipes of mmseg carry from another framework, where they mean what is said beside them."""


def check_clipping(found: Findings, config: Config) -> None:
    """``clip_grad`` holds what torch's function takes: a wrong key stops the first step."""
    wrapper, path = config.get('optim_wrapper'), 'optim_wrapper.clip_grad'
    clip = wrapper.get('clip_grad') if isinstance(wrapper, Mapping) else None
    if not isinstance(clip, Mapping) or not clip:
        return
    kind = clip.get('type', 'norm')
    if kind not in CLIPPERS:
        found.not_among(f'{path}.type', kind, list(CLIPPERS))
        return
    takes = accepted(CLIPPERS[kind])
    names = sorted(takes.names - {'parameters'})
    for key in (one for one in clip if one not in (*names, 'type')):
        if kind == 'norm' and 'max_norm' not in clip:  # said with the other settings of the optimizer
            continue
        other = RENAMED.get((kind, key))
        near = f' Did you mean {other!r}?' if other else did_you_mean(str(key), names)
        found.error(
            f'{path}.{key}',
            f'Expected keys {names} beside type={kind!r} but got {key!r}.{near} The first step would fail: correct it.',
        )
    if kind == 'value' and 'clip_value' not in clip and 'max_norm' not in clip:
        found.error(path, f'Expected clip_value beside type={kind!r} but got {sorted(clip)}. Add clip_value.')


def check_groups(found: Findings, config: Config) -> None:
    """``paramwise_cfg`` holds what its constructor reads: nobody complains of another key."""
    wrapper, path = config.get('optim_wrapper'), 'optim_wrapper.paramwise_cfg'
    given = wrapper.get('paramwise_cfg') if isinstance(wrapper, Mapping) else None
    if not isinstance(wrapper, Mapping) or not isinstance(given, Mapping):
        return
    constructor: Any = find_type(
        wrapper.get('constructor') or DEFAULT, (OPTIM_WRAPPER_CONSTRUCTORS,), wrapper.get('_scope_')
    )
    if not isinstance(constructor, type) or not (known := keys_read(constructor, 'paramwise_cfg')):
        return
    for key in (one for one in given if one not in known):
        needed = LAYER_DECAY.get(str(key))
        cure = f' Add constructor={needed!r} to optim_wrapper.' if needed else did_you_mean(str(key), sorted(known))
        found.error(
            f'{path}.{key}',
            f'Expected keys {sorted(known)} in paramwise_cfg but got {key!r}, which {constructor.__name__} does not '
            f'read.{cure or " Remove it, or correct the name."}',
        )
    custom = given.get('custom_keys')
    inner = keys_read(constructor, 'custom_keys[key]')
    for name, chosen in custom.items() if isinstance(custom, Mapping) and inner else ():
        _check_factor(found, f'{path}.custom_keys.{name}.lr_mult', chosen)
        for key in (one for one in chosen if one not in inner) if isinstance(chosen, Mapping) else ():
            say = found.warning if key in OLD_MULTS else found.error
            say(
                f'{path}.custom_keys.{name}.{key}',
                f'Expected keys {sorted(inner)} but got {key!r}, which is not read.'
                f'{_inner_cure(config, str(key), chosen[key]) or did_you_mean(str(key), sorted(inner))} Correct it.',
            )


def _check_factor(found: Findings, path: str, chosen: Any) -> None:
    factor = chosen.get('lr_mult') if isinstance(chosen, Mapping) else None
    if not isinstance(factor, int | float) or 0 < factor <= LARGEST:
        return
    if factor < 0:
        found.error(path, f'Expected a factor > 0 but got {factor:g}, which climbs the loss. Correct lr_mult.')
    elif factor > LARGEST:
        found.warning(path, f'Expected a factor of the rate but got {factor:g}. Write for example 10.')


def _inner_cure(config: Config, key: str, value: Any) -> str:
    if key in OLD_MULTS:
        return f' It is called {OLD_MULTS[key]}.'
    factor = {'lr': 'lr_mult', 'weight_decay': 'decay_mult'}.get(key)
    base = (optimizer_of(config) or {}).get(key)
    if factor is None or not isinstance(base, int | float) or not isinstance(value, int | float) or not base:
        return f' Write {factor}, a factor.' if factor else ''
    return f' Write {factor}={value / base:g}, the factor of {key}={base:g}.'
