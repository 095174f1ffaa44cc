"""What tools/map_weights.py and tools/project_weights.py share: SOURCE, TARGET and how one becomes the other."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdplugin.errors import ConfigError
from kdplugin.module_paths import did_you_mean, find_module
from kdplugin.weights.reading.source import TensorSource, open_source

TARGETS = (
    "what gets the weights: a config file (its model; a KD config's student), 'timm:NAME', 'torchvision:NAME', or a "
    'checkpoint file, folder or id, of which names and shapes count'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add SOURCE, TARGET and the options that both tools have."""
    parser.add_argument('source', metavar='SOURCE', help='checkpoint: file, folder or hub id')
    parser.add_argument('target', metavar='TARGET', help=TARGETS)
    parser.add_argument('--target', dest='part', default='', metavar='PATH', help='a submodule of TARGET: backbone')
    parser.add_argument('--method', default='svd', help='for axes that change width: truncate, average, svd (default)')
    parser.add_argument(
        '--layers',
        default='uniform',
        type=parse_layers,
        help='layers of a deeper source: uniform (default), first, last, similarity, or indices 0,3,7',
    )
    parser.add_argument(
        '--heads', type=parse_heads, metavar='S[,T]', help='attention heads of SOURCE, or of SOURCE and TARGET: 16,8'
    )
    parser.add_argument('--head-dim', type=int, metavar='N', help='width of a head, where both sides share it')
    parser.add_argument('--prefix', default='', help='take what begins with it in SOURCE, without it: img_backbone.')
    parser.add_argument('--subfolder', help='part of a diffusers folder or id: transformer_2')
    parser.add_argument('--ema', action='store_true', help='take the averaged weights of SOURCE')
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='unpickle files without restrictions, which can run any program; only if you trust their authors',
    )


def parse_layers(text: str) -> str | list[int]:
    """Read a strategy or indices.

    Example:
        >>> parse_layers('uniform'), parse_layers('0,3,7')
        ('uniform', [0, 3, 7])
    """
    return [int(word) for word in text.split(',')] if text[:1].isdigit() else text


def parse_heads(text: str) -> int | dict[str, int]:
    """Read the heads of the source, or of source and target.

    Example:
        >>> parse_heads('16'), parse_heads('16,8')
        (16, {'source': 16, 'target': 8})
    """
    counts = [int(word) for word in text.split(',')]
    return counts[0] if len(counts) == 1 else dict(zip(('source', 'target'), counts, strict=True))


def plan_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what ``plan_for`` takes besides a plan."""
    return {name: getattr(arguments, name) for name in ('method', 'layers', 'heads', 'head_dim')}


def source_of(arguments: argparse.Namespace) -> TensorSource:
    """Open SOURCE with the options of the command line."""
    return open_source(
        arguments.source,
        subfolder=arguments.subfolder,
        prefix=arguments.prefix,
        ema=arguments.ema,
        trust_checkpoint=arguments.trust_checkpoint or None,
    )


def target_of(arguments: argparse.Namespace) -> nn.Module:
    """Build TARGET, or the submodule of it that ``--target`` names."""
    model = build_target(arguments.target, trust_checkpoint=arguments.trust_checkpoint or None)
    return find_module(model, arguments.part, arguments.target) if arguments.part else model


def build_target(spec: str, *, trust_checkpoint: bool | None = None) -> nn.Module:
    """Build the model that TARGET means, with random weights, or a stand-in with the tensors of a checkpoint.

    Raises:
        ConfigError: the config does not parse or has no model, or a library has no model of that name.
        CheckpointError: a checkpoint that cannot be read.
    """
    library, _, name = spec.partition(':')
    if library == 'timm':
        return _timm(name)
    if library == 'torchvision':
        return _torchvision(name)
    if spec.endswith('.py'):
        from kdplugin import launch
        from kdplugin.reports.plain_model import build_plain_model

        return build_plain_model(launch.read_config(spec))
    return stand_in(open_source(spec, trust_checkpoint=trust_checkpoint))


def _timm(name: str) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ConfigError(f'Expected timm for timm:{name} but it is not installed. Run pip install timm.') from None
    known: Sequence[str] = timm.list_models()
    if name.split('.')[0] not in known:
        raise ConfigError(f'Expected a model of timm but got {name!r}.{did_you_mean(name, known)} Correct the name.')
    model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    known: Sequence[str] = models.list_models()
    if name not in known:
        raise ConfigError(
            f'Expected a model of torchvision but got {name!r}.{did_you_mean(name, known)} Correct the name.'
        )
    builder = models.get_model_builder(name)
    backbone = {'weights_backbone': None} if 'weights_backbone' in inspect.signature(builder).parameters else {}
    model: nn.Module = builder(weights=None, **backbone)
    return model


def stand_in(source: TensorSource) -> nn.Module:
    """Return a module with the tensors of a checkpoint under their names, for code that asks for a model.

    Its class is called like the checkpoint's file or folder, for that is what reports name.

    Example:
        >>> import torch
        >>> list(stand_in(open_source({'a.0.weight': torch.zeros(2)})).state_dict())
        ['a.0.weight']
    """
    root: nn.Module = type(Path(source.name).name or 'Module', (nn.Module,), {})()
    for name in source:
        *path, leaf = name.split('.')
        module = root
        for part in path:  # past add_module, which refuses 'forward' and 'training'
            module = module._modules.setdefault(part, nn.Module())  # type: ignore[assignment]
        value = source[name]
        if value.is_floating_point() and not leaf.startswith('running_'):
            module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
        else:
            module._buffers[leaf] = value
    return root
