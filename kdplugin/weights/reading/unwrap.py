"""Find the weights in a checkpoint, whatever training code wrapped around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean

CONTAINERS = ('state_dict', 'model')
"""Under which keys training code keeps the weights, outermost first."""

AVERAGED = ('ema_state_dict', 'state_dict_ema', 'model_ema', 'ema')
"""Under which keys it keeps averaged ones: mmengine and its like, timm, torchvision's recipes, RT-DETR."""

COUNTERS = {'n_averaged', 'steps'}
"""What torch's and mmengine's AveragedModel count, beside the ``module.`` that they average."""

WRAPPERS = {'_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}
"""Parts of names that torch.compile, FSDP and activation checkpointing put in between."""

SHOWN = 5


def state_dict_of(
    checkpoint: Mapping[str, Any], name: str = 'the checkpoint', *, ema: bool = False, prefix: str = ''
) -> dict[str, torch.Tensor]:
    """Take the weights out of a checkpoint: unwraps ``state_dict`` or ``model`` and a ``module.`` prefix.

    Args:
        checkpoint: a whole checkpoint or a flat state dict.
        name: what messages call it.
        ema: take the averaged weights.
        prefix: take what begins with it, and leave it out of the names. It may also be the key of a state dict
            inside the checkpoint ('teacher').

    Raises:
        CheckpointError: there are no tensors, something that is not a tensor sits among them, or there are no
            averaged weights or none under the prefix.
    """
    inner, prefix = _descend(checkpoint, prefix)
    tensors = tensors_of(inner, name, ema=ema)
    return {new: tensors[old] for new, old in plain_names(tensors, name, prefix=prefix).items()}


def tensors_of(checkpoint: Mapping[str, Any], name: str, *, ema: bool = False) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint under the names that they have there; raises as ``state_dict_of``."""
    weights: Mapping[str, Any] = _averaged(checkpoint, name) if ema else checkpoint
    for key in CONTAINERS:
        if isinstance(weights.get(key), Mapping):
            weights = weights[key]
    strangers = [key for key, value in weights.items() if not (isinstance(value, torch.Tensor) and type(key) is str)]
    if strangers or not weights:
        inside = [key for key in strangers if _is_state_dict(weights[key])]
        cure = f'Set prefix= to one of its state dicts: {", ".join(map(repr, inside))}.' if inside else (
            'Pass a file that holds model weights.'
        )  # fmt: skip
        raise CheckpointError(
            f'Expected a state dict of tensors in {name} but got '
            f'{"no entries" if not weights else f"non-tensor entries such as {strangers[:3]}"}. {cure}'
        )
    return dict(weights)


def plain_names(names: Iterable[str], name: str, *, prefix: str = '') -> dict[str, str]:
    """Return {plain name: name in the file}, in the file's order.

    Parts that wrappers put in between are left out, as is ``module.`` where every name begins with it (the counters
    of averaged weights do not count). With ``prefix``, only what begins with it stays, without it.

    Raises:
        CheckpointError: two tensors get one name, or none begins with the prefix.
    """
    pairs = [('.'.join(part for part in old.split('.') if part not in WRAPPERS), old) for old in names]
    while True:
        body = [(new, old) for new, old in pairs if new not in COUNTERS]
        if not body or not all(new.startswith('module.') for new, _ in body):
            break
        pairs = [(new[len('module.') :], old) for new, old in body]
    plain: dict[str, str] = {}
    for new, old in pairs:
        if new in plain:
            raise CheckpointError(
                f'Expected a name for each tensor of {name} but got {new!r} for both {plain[new]!r} and {old!r}. '
                'Rename one of them.'
            )
        plain[new] = old
    return _select(plain, name, prefix)


def require_averaged(names: Iterable[str], name: str) -> None:
    """Demand that a flat list of tensors is what torch's ``AveragedModel`` saves.

    Raises:
        CheckpointError: it is not.
    """
    names = list(names)
    if not ('n_averaged' in names and all(key in COUNTERS or key.startswith('module.') for key in names)):
        raise CheckpointError(
            f'Expected averaged (EMA) weights in {name} but got {len(names)} tensors such as '
            f'{", ".join(names[:SHOWN])}. Read it without ema, or give the prefix of the averaged ones.'
        )


def _select(plain: dict[str, str], name: str, prefix: str) -> dict[str, str]:
    if not prefix:
        return plain
    prefix = prefix.rstrip('.') + '.'
    chosen = {new[len(prefix) :]: old for new, old in plain.items() if new.startswith(prefix)}
    if not chosen:
        known = dict.fromkeys('.'.join(new.split('.')[:depth]) + '.' for depth in (1, 2) for new in plain if '.' in new)
        first = list(dict.fromkeys(new.split('.')[0] for new in plain))
        raise CheckpointError(
            f'Expected names that begin with {prefix!r} in {name} but none does.{did_you_mean(prefix, known)} '
            f'They begin with {", ".join(first[:12])}. Correct the prefix.'
        )
    return chosen


def _descend(checkpoint: Mapping[str, Any], prefix: str) -> tuple[Mapping[str, Any], str]:
    """Follow a prefix into state dicts inside a checkpoint; returns what is left of it."""
    key, _, rest = prefix.partition('.')
    inner = checkpoint.get(key) if key else None
    return _descend(inner, rest) if isinstance(inner, Mapping) else (checkpoint, prefix)


def _averaged(checkpoint: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the part of a checkpoint that holds averaged weights.

    mmengine's EMAHook swaps before it saves (``_swap_ema_state_dict``): in its files ``state_dict`` is the average,
    and ``ema_state_dict`` holds the raw weights.
    """
    meta = checkpoint.get('meta')
    if 'ema_state_dict' in checkpoint and isinstance(meta, Mapping) and 'mmengine_version' in meta:
        return {'state_dict': checkpoint['state_dict']}
    for key in AVERAGED:
        found = checkpoint.get(key)
        if isinstance(found, Mapping):
            return found['module'] if isinstance(found.get('module'), Mapping) else found
    flat = next((checkpoint[key] for key in CONTAINERS if isinstance(checkpoint.get(key), Mapping)), checkpoint)
    if 'n_averaged' not in flat:
        held = [key for key, value in checkpoint.items() if _is_state_dict(value)]
        what = f'only {", ".join(map(repr, held))}' if held else f'{len(checkpoint)} entries such as ' + ', '.join(
            map(repr, list(checkpoint)[:SHOWN])
        )  # fmt: skip
        raise CheckpointError(f'Expected averaged (EMA) weights in {name} but got {what}. Read it without ema.')
    require_averaged(flat, name)
    return flat


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(item, torch.Tensor) for item in value.values())
