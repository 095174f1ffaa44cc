"""Which file of a folder holds the weights: a choice among names, alike for a local folder and for a hub repository."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from kdplugin.errors import CheckpointError
from kdplugin.module_paths import did_you_mean
from kdplugin.weights.naming import natural_key

INDEXES = ('.safetensors.index.json', '.bin.index.json')
FILES = ('.safetensors', '.bin', '.pth', '.pt', '.ckpt', '.pth.tar')
FORMATS = (INDEXES[0], FILES[0], INDEXES[1], *FILES[1:])
"""Endings of weights; ``USUAL`` ones are chosen in this order."""

USUAL = ('model', 'diffusion_model', 'open_clip_model')
"""How transformers, diffusers and open_clip name weights, without 'pytorch_': alone, or the same in several formats."""

SHARD = re.compile(r'-\d+-of-\d+\.')
NOT_WEIGHTS = re.compile(r'(training_args|optimizer|scheduler|scaler|rng_state|random_states?)(_?\d+)?\.\w+$')
"""What training code leaves beside weights."""


def listing(folder: Path, subfolder: str = '') -> list[str]:
    """Return the names of files in a folder and in its subfolders, relative to it; with ``subfolder`` one level lower.

    Example:
        >>> listing(Path('Wan2.2'))  # doctest: +SKIP
        ['model_index.json', 'transformer/config.json', 'transformer/diffusion_pytorch_model.safetensors.index.json']
    """
    names: list[str] = []
    levels = [folder, folder / subfolder] if subfolder else [folder]
    for level in levels:
        for entry in os.scandir(level) if level.is_dir() else ():
            below = os.scandir(entry.path) if entry.is_dir() else (entry,)
            names += [os.path.relpath(file.path, folder).replace(os.sep, '/') for file in below if file.is_file()]
    return sorted(set(names), key=natural_key)


def choose(names: Collection[str], where: str, subfolder: str | None = None) -> str:
    """Return the name of the weights: a file, or the index of a sharded checkpoint.

    Args:
        names: relative names of files, with '/' between folders.
        where: what messages call the folder.
        subfolder: the part of a diffusers folder to look into ('transformer').

    Raises:
        CheckpointError: no weights, several that could be meant, or no such subfolder.
    """
    if subfolder:
        subfolder = subfolder.strip('/')
        inside = [name[len(subfolder) + 1 :] for name in names if name.startswith(f'{subfolder}/')]
        if not inside:
            folders = sorted({name.rpartition('/')[0] for name in names if '/' in name})
            raise CheckpointError(
                f'Expected a subfolder of {where} but got {subfolder!r}.{did_you_mean(subfolder, folders)} '
                f'It has {_few(folders) or "none"}. Correct subfolder.'
            )
        return f'{subfolder}/{choose(inside, f"{where}/{subfolder}")}'
    top = [name for name in names if '/' not in name]
    found = _candidates(top)
    parts = [part for part in _folders(names) if _candidates(_below(names, part))]
    if 'model_index.json' in top and len(parts) + len(found) > 1:
        raise CheckpointError(
            f'Expected one of the {len(parts)} components of the diffusers folder {where} but got none: '
            f'{", ".join(parts)} hold weights{_experts(parts)}. Set subfolder to one of them.'
        )
    if 'model_index.json' in top and parts:
        return choose(names, where, parts[0])
    if len(found) == 1:
        return found[0]
    raise _ambiguous(found, where) if found else _nothing(top, parts, where)


def _candidates(names: Iterable[str]) -> list[str]:
    """Return what could be meant by 'the weights' of a folder: the usual ones, else everything that may be weights."""
    stems = {
        name: name[: -len(ending)].replace('pytorch_', '')
        for name in names
        if '/' not in name and not SHARD.search(name) and not NOT_WEIGHTS.search(name)
        for ending in FORMATS
        if name.endswith(ending)
    }
    for usual in USUAL:
        for index, file in ((INDEXES[0], FILES[0]), (INDEXES[1], FILES[1])):
            same = [name for name, stem in stems.items() if stem == usual and name.endswith((index, file))]
            if same:
                return same
    return list(stems)


def _folders(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name.split('/')[0] for name in names if '/' in name))


def _below(names: Iterable[str], folder: str) -> list[str]:
    return [name[len(folder) + 1 :] for name in names if name.startswith(f'{folder}/')]


def _experts(parts: list[str]) -> str:
    """Say which of the two experts of Wan 2.2 is which (diffusers' WanPipeline)."""
    if 'transformer_2' not in parts:
        return ''
    return ' (in Wan 2.2, transformer is the high-noise expert and transformer_2 the low-noise one)'


def _few(names: Iterable[str], count: int = 10) -> str:
    names = list(names)
    return ', '.join(names[:count]) + (f' and {len(names) - count} more' if len(names) > count else '')


def _ambiguous(found: list[str], where: str) -> CheckpointError:
    return CheckpointError(
        f'Expected one checkpoint in {where} but got {len(found)}: {_few(found)}. Give the path of one of them.'
    )


def _nothing(top: list[str], parts: list[str], where: str) -> CheckpointError:
    shards = [name for name in top if SHARD.search(name) and name.endswith(FILES)]
    if shards:
        return CheckpointError(
            f'Expected an index beside the shards in {where} but got {_few(shards, 3)} alone. '
            f'Copy {SHARD.split(shards[0])[0]}{INDEXES[0] if shards[0].endswith(FILES[0]) else INDEXES[1]} as well.'
        )
    cure = f'Set subfolder to one of {", ".join(parts)}' if parts else f'Give a folder with one of {", ".join(FILES)}'
    return CheckpointError(f'Expected weights in {where} but got {_few(top) or "no files"}. {cure}.')
