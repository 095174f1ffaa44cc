"""Checkpoints read lazily, one tensor at a time, wherever they lie."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.reading.files import open_file
from kdplugin.weights.reading.folders import INDEXES, choose, listing
from kdplugin.weights.reading.hub import fetch, is_id
from kdplugin.weights.reading.io import trusts
from kdplugin.weights.reading.sharded import ShardedSource
from kdplugin.weights.reading.tensor_source import MemorySource, RenamedSource, TensorSource
from kdplugin.weights.reading.unwrap import plain_names, require_averaged, state_dict_of

__all__ = ['MemorySource', 'RenamedSource', 'TensorSource', 'open_source']


def open_source(
    what: Any,
    *,
    subfolder: str | None = None,
    prefix: str = '',
    ema: bool = False,
    trust_checkpoint: bool | None = None,
    name: str | None = None,
) -> TensorSource:
    """Return the weights of a file, folder, hub id, state dict or model, without reading them.

    ``state_dict``, ``model``, ``module.`` and the names that wrappers put in between are left out, as in
    ``state_dict_of``.

    Args:
        what: a ``.pth``, ``.pt``, ``.ckpt``, ``.tar``, ``.bin`` or ``.safetensors`` file; a folder with one of them,
            with shards and their index, or a diffusers folder; an id ('org/name', 'hf-hub:org/name', a model of timm);
            a flat state dict or a whole checkpoint; a module; or a source, which is returned as it is.
        subfolder: a part of a diffusers folder or of a repository ('transformer').
        prefix: take what begins with it ('img_backbone.'), without it; or the key of a state dict in the file.
        ema: take the averaged weights. mmengine saves those as ``state_dict``, so its files need no request.
        trust_checkpoint: see ``read_checkpoint``.
        name: what messages and reports call it.

    Raises:
        CheckpointError: nothing is there, several things are, it is damaged or unsafe, or it holds no such weights.

    Example:
        >>> source = open_source({'state_dict': {'module.head.bias': torch.zeros(3)}}, prefix='head')
        >>> list(source), source.shape('bias')
        (['bias'], (3,))
    """
    trust = trusts(trust_checkpoint)  # now, not when a shard is opened
    if isinstance(what, nn.Module):
        what, name = what.state_dict(), name or type(what).__name__
    if isinstance(what, TensorSource):
        source = _named(what, prefix, ema) if prefix or ema else what
        source = RenamedSource(source, {key: key for key in source}) if name else source
    elif isinstance(what, Mapping):
        source = MemorySource(state_dict_of(what, name or 'the state dict', ema=ema, prefix=prefix))
    elif isinstance(what, str | os.PathLike):
        file = _locate(what, subfolder)
        name, subfolder = name or '/'.join(filter(None, (str(what), subfolder))), None
        if file.name.endswith(INDEXES):
            source = _named(ShardedSource(file, trust), prefix, ema)
        elif file.suffix == '.safetensors':
            source = _named(open_file(file, dict), prefix, ema)
        else:
            take = functools.partial(state_dict_of, name=str(file), ema=ema, prefix=prefix)
            source = open_file(file, take, trust)
    else:
        raise CheckpointError(
            f'Expected a path, an id, a state dict or a model but got {type(what).__name__}. Give one of these.'
        )
    if subfolder:
        raise CheckpointError(f'Expected subfolder for a folder or an id alone but got it for {source.name}. Omit it.')
    if name:
        source.name = name
    return source


def _named(source: TensorSource, prefix: str, ema: bool) -> TensorSource:
    """Return a source whose names are plain ones."""
    if ema:
        require_averaged(source, source.name)
    names = plain_names(source, source.name, prefix=prefix)
    return source if all(new == old for new, old in names.items()) else RenamedSource(source, names)


def _locate(what: str | os.PathLike[str], subfolder: str | None) -> Path:
    """Return the file, or the index of shards, that a path or an id means."""
    path = Path(what).expanduser()
    if path.is_dir():
        return path / choose(listing(path, subfolder or ''), str(path), subfolder)
    if path.is_file():
        if subfolder:
            raise CheckpointError(
                f'Expected a folder for subfolder {subfolder!r} but {path} is a file. Omit subfolder.'
            )
        return path
    local = '/' in str(what) and path.parent.is_dir()
    if isinstance(what, str) and is_id(what) and not local:
        return fetch(what, subfolder)
    if '://' in str(what):
        raise CheckpointError(f'Expected a file, a folder or an id but got the address {what}. Download it first.')
    beside = [str(path.parent / other) for other in os.listdir(path.parent)] if path.parent.is_dir() else []
    raise CheckpointError(
        f'Expected a checkpoint file or folder but {path} does not exist.{did_you_mean(str(path), beside)} '
        f'Check the path{f", or write hf-hub:{what} for the hub" if is_id(str(what)) else ""}.'
    )
