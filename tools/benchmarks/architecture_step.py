"""One shipped config: does its model train, does it distil from itself, does the checkpoint fit the plain model?"""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdplugin import launch
from kdplugin.distill.model_config import plain_model_config
from kdplugin.distill.probe import probe, synthetic_batch
from kdplugin.errors import TapError
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of

SIZES = ((128, 128), (256, 256), (512, 512))
"""Input sizes to try; then the one that the model's preprocessor makes."""
BATCH = 2
HEADS = ('rpn_head', 'bbox_head', 'decode_head', 'panoptic_head', 'mask_head', 'roi_head', 'semantic_head')
LAST = re.compile(r'conv_seg|cls|heatmap|logits')
"""What layers are often called that put out scores."""


@dataclass
class Outcome:
    """What became of one config; ``stage`` is where it stopped: 'plain', 'kd', 'load', or 'ok'."""

    config: str
    stage: str = 'plain'
    reason: str = ''
    size: tuple[int, int] | None = None
    taps: tuple[str, ...] = ()


def plain_values(node: Any) -> Any:
    """Return a model config that asks for no file of weights and for no second process: no SyncBN.

    Example:
        >>> plain_values(dict(init_cfg=dict(type='Pretrained', checkpoint='x'), norm_cfg=dict(type='SyncBN')))
        {'init_cfg': None, 'norm_cfg': {'type': 'BN'}}
    """
    if isinstance(node, dict):
        made = type(node)()
        for key, value in node.items():
            pretrained = isinstance(value, dict) and str(value.get('type')).startswith('Pretrained')
            from_file = key in ('pretrained', 'load_from') and isinstance(value, str)
            made[key] = None if (key == 'init_cfg' and pretrained) or from_file else plain_values(value)
        if made.get('type') in ('SyncBN', 'MMSyncBN', 'NaiveSyncBN'):
            made['type'] = 'BN'
        return made
    return type(node)(plain_values(item) for item in node) if isinstance(node, list | tuple) else node


def model_of(config: Path) -> tuple[dict[str, Any], str]:
    """Return the model config of a file, without files of weights, and its scope."""
    cfg = launch.read_config(config)
    scope = cfg.get('default_scope', 'mmdet')
    init_default_scope(scope)
    return plain_values(plain_model_config(cfg)), scope


def sizes_of(model: nn.Module) -> list[tuple[int, int]]:
    """Return the input sizes to try, small first."""
    own = getattr(getattr(model, 'data_preprocessor', None), 'size', None)
    return list(dict.fromkeys([*SIZES, *([tuple(own)] if own is not None else [])]))


def step(model: Any, size: tuple[int, int]) -> dict[str, float]:
    """Take one training step on a synthetic batch and return the loss terms.

    Raises:
        ValueError: the loss is not finite, or trains nothing.
    """
    model.train()
    inputs, samples = synthetic_batch(model, size, BATCH)
    total, terms = model.parse_losses(model(inputs, samples, mode='loss'))
    total.backward()
    if not torch.isfinite(total):
        raise ValueError(f'the loss is {float(total)}')
    if not any(parameter.grad is not None for parameter in model.parameters()):
        raise ValueError('no parameter has a gradient')
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 35)
    if not torch.isfinite(norm):
        raise ValueError(f'the norm of the gradient is {float(norm)}')
    torch.optim.SGD(model.parameters(), lr=1e-4).step()
    return {name: float(value.detach()) for name, value in terms.items()}


def first_size(model: nn.Module) -> tuple[int, int]:
    """Return the first size at which a model takes a step; raises what the last one raised."""
    sizes = sizes_of(model)
    for size in sizes[:-1]:
        try:
            step(model, size)
            return size
        except Exception:  # noqa: S112, PERF203 - too small for its pooling, positions of another size
            continue
    step(model, sizes[-1])
    return sizes[-1]


@torch.no_grad()
def settle(model: nn.Module, size: tuple[int, int]) -> None:
    """Give BatchNorm the statistics of a batch, as a training does: with those of a new model deep ones explode."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    inputs, samples = synthetic_batch(model, size, BATCH)
    model(inputs, samples, mode='loss')
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def heads_of(model: nn.Module) -> Iterator[str]:
    """Yield the paths of leaf modules below a head, those whose names say that they put out scores last."""
    leaves = [
        name
        for name, module in model.named_modules()
        if name.split('.')[0] in HEADS and not list(module.children()) and list(module.parameters(recurse=False))
    ]
    return iter(sorted(leaves, key=lambda name: bool(LAST.search(name.rsplit('.', 1)[-1]))))


def head_tap(model: nn.Module, size: tuple[int, int]) -> str | None:
    """Return the last layer of a head that fires with maps or queries that carry a gradient, or None."""
    fired: dict[str, Any] = {}
    model.train()
    hooks = [
        model.get_submodule(path).register_forward_hook(partial(_keep_first, fired, path)) for path in heads_of(model)
    ]
    inputs, samples = synthetic_batch(model, size, BATCH)
    model(inputs, samples, mode='loss')
    for hook in hooks:
        hook.remove()
    usable = [
        path for path, value in fired.items()
        if isinstance(value, Tensor) and value.requires_grad and value.dim() >= 3 and value.shape[0] == BATCH
    ]  # fmt: skip
    named = [path for path in usable if LAST.search(path.rsplit('.', 1)[-1])]
    last_first = [*reversed(named), *(path for path in reversed(usable) if path not in named)]
    return next((path for path in last_first if runs_in_a_teacher(model, path, fired[path], size)), None)


def _keep_first(fired: dict[str, Any], path: str, _module: nn.Module, _args: Any, output: Any) -> None:
    fired.setdefault(path, output)


def runs_in_a_teacher(model: nn.Module, path: str, output: Tensor, size: tuple[int, int]) -> bool:
    """Tell whether a layer runs without training too (auxiliary heads don't), with as many queries.

    Denoising adds queries that no teacher has.
    """
    try:
        shapes = probe(model, [path], 'model', [size]).shapes[path]
    except TapError:
        return False
    return output.dim() > 3 or shapes[0][1] == output.shape[1]


def feature_tap(model: nn.Module) -> str:
    """Return the neck where there is one, else the backbone."""
    return 'neck' if getattr(model, 'with_neck', False) else 'backbone'


def distil(plain: dict[str, Any], checkpoint: str, taps: tuple[str, ...]) -> nn.Module:
    """Build a model that learns from itself."""
    pairs = {f'pair{number}': dict(tap=tap, loss=dict(type='kdplugin.PKDLoss')) for number, tap in enumerate(taps)}
    teacher = dict(model=copy.deepcopy(plain), checkpoint=checkpoint)
    return MODELS.build(dict(type='kdplugin.Distiller', student=copy.deepcopy(plain), teacher=teacher, pairs=pairs))


def told(error: Exception) -> str:
    """Return an exception on one line, without the folders of this machine.

    Example:
        >>> told(KeyError('no /home/me/x/y.py'))
        "KeyError: 'no y.py'"
    """
    text = re.sub(r'(?:/[\w.+-]+)+/', '', ' '.join(str(error).split()))
    return f'{type(error).__name__}: {text.split(", the current sys.path is")[0]}'[:400]


def examine(config: Path) -> dict[str, Any]:
    """Go through one config; what stops it is the outcome's reason."""
    torch.manual_seed(0)
    outcome = Outcome(config.name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _examine(config, outcome, os.path.join(folder, 'weights.pth'))
        except Exception as error:  # any model of any host: its reason is the result
            outcome.reason = told(error)
    return asdict(outcome)


def _examine(config: Path, outcome: Outcome, file: str) -> None:
    plain, _ = model_of(config)
    model: Any = MODELS.build(copy.deepcopy(plain))
    model.init_weights()
    outcome.size = first_size(model)
    settle(model, outcome.size)
    torch.save({'state_dict': model.state_dict()}, file)
    tap = head_tap(model, outcome.size)
    outcome.taps = (feature_tap(model), *([tap] if tap else []))
    outcome.stage = 'kd'
    student: Any = distil(plain, file, outcome.taps)
    student.init_weights()
    terms = step(student, outcome.size)
    missing = [name for name in ('loss_kd_pair0', 'loss_kd_pair1')[: len(outcome.taps)] if name not in terms]
    if missing:
        raise ValueError(f'{missing} are not among the losses {sorted(terms)}')
    outcome.stage = 'load'
    torch.save({'state_dict': student.state_dict()}, file)
    MODELS.build(copy.deepcopy(plain)).load_state_dict(state_dict_of(read_checkpoint(file), file), strict=True)
    outcome.stage = 'ok'
