"""Read and write checkpoints without running code from the file.

A ``.pth`` file is a pickle, and a pickle can run any program. Everything here goes through
``torch.load(weights_only=True)`` with a short allow-list (what mmengine's own checkpoints hold besides
tensors) or through safetensors. Full unpickling happens only when the user says ``trust_checkpoint=True``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.damage import CONTAINERS, pickle_damage, refusal, safetensors_damage
from kdplugin.weights.reading.seal import check_seal
from kdplugin.weights.reading.stand_ins import stand_ins
from kdplugin.weights.reading.unwrap import state_dict_of

__all__ = ['atomic_file', 'hash_file', 'hash_tensors', 'read_checkpoint', 'state_dict_of', 'trust_checkpoints',
           'write_checkpoint']  # fmt: skip

_trust_by_default = False

HISTORY_BUFFER_METHODS = ('min', 'max', 'mean', 'current')
ONE_CYCLE_CURVES = ('_annealing_cos', '_annealing_linear')
NUMBER_TYPES = [*itertools.product('iu', (1, 2, 4, 8)), *itertools.product('f', (2, 4, 8)), ('b', 1)]


@contextlib.contextmanager
def trust_checkpoints(trust: bool) -> Iterator[None]:
    """Set what ``read_checkpoint`` does within the block when its caller says nothing."""
    global _trust_by_default
    before, _trust_by_default = _trust_by_default, trust
    try:
        yield
    finally:
        _trust_by_default = before


def trusts(trust_checkpoint: bool | None) -> bool:
    """Return what a caller said, or the surrounding ``trust_checkpoints`` block, or False."""
    return _trust_by_default if trust_checkpoint is None else trust_checkpoint


def _number_type(code: str, align: bool = False, copy: bool = False) -> np.dtype[Any]:
    """Stand in for ``np.dtype``: number types alone, and never a copy.

    A copy would take whatever flags the file gives it, such as "holds objects" for an array of raw bytes.
    """
    kind = np.dtype(code)
    if kind.kind not in 'biuf':
        raise pickle.UnpicklingError(f'numpy.dtype({code!r}) is not part of a checkpoint')
    return kind


def _mmengine_globals() -> list[Any]:
    """Return stand-ins for what mmengine's own checkpoints name: HistoryBuffer, and ``getattr`` for a few methods."""
    from mmengine.logging.history_buffer import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    class History(HistoryBuffer):
        """Becomes a HistoryBuffer, without the methods that its pickle would install for the whole process."""

        def __setstate__(self, state: dict[str, Any]) -> None:
            super().__setstate__({key: state[key] for key in state if key != 'statistics_methods'})
            self.__class__ = HistoryBuffer

    class OneCycle:
        """Stands for the scheduler whose state names one of its own curves."""

    methods: dict[Any, Any] = {
        History: (HistoryBuffer, HISTORY_BUFFER_METHODS),
        OneCycle: (OneCycleParamScheduler, ONE_CYCLE_CURVES),
    }

    def method(owner: Any, name: Any) -> Any:
        real, names = methods.get(owner, (None, ())) if isinstance(owner, type) else (None, ())
        if name not in names:
            raise pickle.UnpicklingError(f'builtins.getattr({owner!r}, {name!r}) is not part of a checkpoint')
        return getattr(real, name)

    return [
        (History, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (OneCycle, 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'),
        (method, 'builtins.getattr'),
    ]


@functools.cache
def _allow_list() -> list[Any]:
    numpy_core = np._core if hasattr(np, '_core') else np.core
    allowed: list[Any] = [np.ndarray, (_number_type, 'numpy.dtype'), *stand_ins()]
    allowed += {type(np.dtype(f'{kind}{size}')) for kind, size in NUMBER_TYPES}
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed.append((numpy_core.multiarray._reconstruct, f'{module}._reconstruct'))
        allowed.append((numpy_core.multiarray.scalar, f'{module}.scalar'))
    with contextlib.suppress(ImportError):
        allowed += _mmengine_globals()
    return allowed


def _load_pickle(source: Path | BinaryIO, name: str, map_location: Any, trust: bool, mmap: bool) -> Any:
    head = b''
    try:
        head = _first_bytes(source)
        mmap = mmap and zipfile.is_zipfile(source)
        if trust:
            return torch.load(source, map_location=map_location, weights_only=False, mmap=mmap)
        with torch.serialization.safe_globals(_allow_list()):
            return torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged file can raise anything
        refused = isinstance(error, pickle.UnpicklingError) and head.startswith(CONTAINERS) and not trust
        raise (refusal(error, name) if refused else pickle_damage(error, head, name)) from None


def _first_bytes(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open('rb') as file:
            return file.read(16)
    head = source.read(16)
    source.seek(-len(head), os.SEEK_CUR)
    return head


def read_checkpoint(
    path: str | Path | BinaryIO, map_location: Any = 'cpu', trust_checkpoint: bool | None = None, *, mmap: bool = False
) -> dict[str, Any]:
    """Read a ``.pth``/``.pt``/``.ckpt`` or ``.safetensors`` file into a dict, safely.

    Args:
        path: a local file, or an open binary file.
        map_location: where tensors go, as in ``torch.load``.
        trust_checkpoint: True unpickles everything, which can run any program; None takes the surrounding
            ``trust_checkpoints`` block, or False.
        mmap: leave tensors of a zip file (what ``torch.save`` writes since 1.6) on disk until they are touched; its
            checksum, if it has one, is not looked at then.

    Raises:
        CheckpointError: the file is missing, damaged, not a dict, or wants to run code.
    """
    trust = trusts(trust_checkpoint)
    if isinstance(path, str | Path):
        file = Path(path).expanduser()
        if not file.is_file():
            problem = 'is a folder' if file.is_dir() else 'does not exist'
            raise CheckpointError(f'Expected a checkpoint file but {file} {problem}. Check the path.')
        if file.suffix == '.safetensors':
            return {'state_dict': _read_safetensors(file, map_location)}
        if not mmap:
            check_seal(file)
        content = _load_pickle(file, str(file), map_location, trust, mmap)
        name = str(file)
    else:
        content, name = _load_pickle(path, 'the stream', map_location, trust, False), 'the stream'
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f'Expected a dict of tensors in {name} but got {type(content).__name__}. '
            'Save model.state_dict() instead of the model.'
        )
    return content if isinstance(content, dict) else dict(content)


def _read_safetensors(file: Path, map_location: Any) -> dict[str, torch.Tensor]:
    device = map_location if isinstance(map_location, str | torch.device) else 'cpu'
    try:
        return safetensors.torch.load_file(file, device=str(device))
    except (safetensors.SafetensorError, OSError) as error:
        raise safetensors_damage(error, file) from None


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_file(path) as temporary:
        Path(temporary).write_text(text)


def write_figure(figure: Any, path: str | Path) -> None:
    """Write a figure of matplotlib as a PNG file, whole or not at all."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format='png')


def write_checkpoint(content: Mapping[str, Any], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write ``content`` to ``path`` atomically: a reader sees the old file or the whole new one.

    Args:
        content: a checkpoint dict, or a flat state dict. A ``.safetensors`` path takes its weights alone.
        path: ends in ``.safetensors`` or in anything else for ``torch.save``.
        metadata: strings for the header of a ``.safetensors`` file.
    """
    target = Path(path)
    with atomic_file(target) as temporary:
        if target.suffix == '.safetensors':
            safetensors.torch.save_file(_unshared(state_dict_of(content)), temporary, metadata=metadata or {})
        else:
            with open(temporary, 'wb') as file:  # given a path, torch writes its random name into the file
                torch.save(content, file)


def _unshared(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy what safetensors refuses, tensors that share memory or are not contiguous, and nothing else."""
    seen, own = set(), {}
    for key, value in weights.items():
        memory = (value.device, value.untyped_storage().data_ptr())
        apart = memory not in seen and value.is_contiguous()
        seen.add(memory)
        own[key] = value.detach() if apart else value.detach().clone(memory_format=torch.contiguous_format)
    return own


@contextlib.contextmanager
def atomic_file(target: str | Path) -> Iterator[str]:
    """Give a temporary path beside ``target`` that replaces it, synced to disk, if the block succeeds."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f'.{target.name}.')
    os.close(handle)
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a new name in a folder to disk, where the system can: the content is there already."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def hash_file(path: str | Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') else _digest(file)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 over names, shapes, types and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f'{name}|{tuple(value.shape)}|{value.dtype}|'.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
