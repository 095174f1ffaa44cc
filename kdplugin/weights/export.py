"""Take the plain student out of a training checkpoint.

The weights that mmengine saves under ``state_dict`` are the ones that were validated: where an ``EMAHook`` is
in use it has swapped the averaged weights in, and the raw ones sit under ``ema_state_dict``. So there is one
right choice, and no option.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of, write_checkpoint

META_KEPT = ('dataset_meta', 'kdplugin')
"""What an exported file says about itself: classes and palette, and how it was distilled."""


@dataclass(frozen=True)
class ExportReport:
    """What went in and what came out.

    Args:
        values: numbers in all tensors: parameters and buffers, which a state dict does not tell apart.
        dropped: top-level keys of the training checkpoint that stayed behind.
        averaged: the training checkpoint held EMA weights, and these are they.
    """

    source: str
    target: str
    tensors: int
    values: int
    weights_bytes: int
    bytes_before: int
    bytes_after: int
    dropped: tuple[str, ...]
    averaged: bool


def student_weights(checkpoint: Mapping[str, Any], name: str = 'the checkpoint') -> dict[str, torch.Tensor]:
    """Return the student's tensors of a checkpoint.

    Raises:
        CheckpointError: a teacher or adapters sit among them, so this is not a student's file.
    """
    weights = state_dict_of(checkpoint, name)
    strangers = [key for key in weights if _is_stranger(key)]
    if strangers:
        raise CheckpointError(
            f'Expected the weights of a student in {name} but got {len(strangers)} keys of a teacher or '
            f'of adapters, such as {strangers[0]!r}. Export a checkpoint that kdplugin saved, or bring the '
            'file to plain student keys first.'
        )
    return weights


def _is_stranger(key: str) -> bool:
    return key.startswith(('teacher.', 'architecture.')) or '_kd' in key.split('.')


def export_student(source: str | Path, target: str | Path, trust_checkpoint: bool = False) -> ExportReport:
    """Write the student of a training checkpoint as a file that mmdet, mmseg or plain PyTorch loads.

    A ``.pth`` holds ``{'meta': {...}, 'state_dict': {...}}``, a ``.safetensors`` the weights and the same
    meta as JSON strings in its header. Tensors are copied: views and tied weights bring no hidden storage.

    Args:
        source: a checkpoint that a training saved.
        target: ends in ``.pth`` or ``.safetensors``; an existing file is replaced.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        CheckpointError: the source is not a student's checkpoint, or the target has another ending or is the
            source.
    """
    source, target = Path(source), Path(target)
    check_target(source, target)
    checkpoint = read_checkpoint(source, trust_checkpoint=trust_checkpoint)
    weights = {key: value.detach().clone() for key, value in student_weights(checkpoint, str(source)).items()}
    saved_meta = checkpoint.get('meta') if isinstance(checkpoint.get('meta'), Mapping) else None
    meta = {key: saved_meta[key] for key in META_KEPT if key in saved_meta} if saved_meta else {}
    header = {key: json.dumps(value, default=_as_plain) for key, value in meta.items()}
    write_checkpoint({'meta': meta, 'state_dict': weights}, target, metadata=header)
    wrapped = 'state_dict' in checkpoint
    return ExportReport(
        source=str(source),
        target=str(target),
        tensors=len(weights),
        values=sum(value.numel() for value in weights.values()),
        weights_bytes=sum(value.nbytes for value in weights.values()),
        bytes_before=source.stat().st_size,
        bytes_after=target.stat().st_size,
        dropped=tuple(sorted(set(checkpoint) - {'meta', 'state_dict'})) if wrapped else (),
        averaged='ema_state_dict' in checkpoint,
    )


def _as_plain(value: Any) -> Any:
    """Let JSON write what classes and palettes may be made of besides lists: arrays and tensors."""
    if hasattr(value, 'tolist'):
        return value.tolist()
    raise TypeError(f'Object of type {type(value).__name__} is not JSON serializable')


def check_target(source: Path, target: Path) -> None:
    """Raise CheckpointError if an export to ``target`` would have no known format, or overwrite its source."""
    if target.suffix not in ('.pth', '.safetensors'):
        raise CheckpointError(f'Expected OUT to end in .pth or .safetensors but got {target}. Rename it.')
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(f'Expected OUT to be another file but got the checkpoint {source} itself. Rename it.')
