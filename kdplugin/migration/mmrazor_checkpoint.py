"""An MMRazor 1.x distillation checkpoint as a checkpoint of the plain student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config

from kdplugin.errors import CheckpointError
from kdplugin.migration.mmrazor_models import read_source, scoped
from kdplugin.migration.notes import Note
from kdplugin.reports.tables import count
from kdplugin.weights.export import META_KEPT, check_target
from kdplugin.weights.reading.io import read_checkpoint, state_dict_of, write_checkpoint

STUDENT = 'architecture.'
CONNECTORS = 'distiller.connectors.'


def migrate_checkpoint(source: str | Path, target: str | Path, trust_checkpoint: bool = False) -> list[Note]:
    """Write the student of an MMRazor distillation checkpoint under the plain model's names; returns what happened.

    Teacher, connectors and the state of the optimizer stay behind. Where an EMAHook was in use the averaged weights are
    taken, as they are the ones that were validated.

    Args:
        source: saved by a training with MMRazor.
        target: ends in ``.pth`` or ``.safetensors``; an existing file is replaced.
        trust_checkpoint: see ``read_checkpoint``.

    Raises:
        CheckpointError: the source holds no student, or the target has another ending or is the source.
    """
    source, target = Path(source), Path(target)
    check_target(source, target)
    checkpoint = read_checkpoint(source, trust_checkpoint=trust_checkpoint)
    weights = state_dict_of(checkpoint, str(source))
    student = {key[len(STUDENT) :]: value.clone() for key, value in weights.items() if key.startswith(STUDENT)}
    if not student:
        first = list(dict.fromkeys(key.split('.')[0] for key in weights))
        raise CheckpointError(
            f'Expected tensors that begin with {STUDENT!r} in {source} but its names begin with {first[:8]}. Give a '
            'checkpoint of an MMRazor distillation; others need no migration.'
        )
    saved = checkpoint.get('meta')
    meta = {key: saved[key] for key in META_KEPT if key in saved} if isinstance(saved, Mapping) else {}
    write_checkpoint({'meta': meta, 'state_dict': student}, target)
    return _notes(student, weights, checkpoint)


def _notes(
    student: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor], checkpoint: Mapping[str, object]
) -> list[Note]:
    notes = [Note('converted', 'student', f'{_size(student)}: names without {STUDENT!r}.')]
    if 'ema_state_dict' in checkpoint:
        notes.append(Note('kept', 'student', 'averaged weights (EMA): the ones that were validated.'))
    rest = {key: value for key, value in weights.items() if not key.startswith(STUDENT)}
    connectors = {key: value for key, value in rest.items() if key.startswith(CONNECTORS)}
    names = sorted({key[len(CONNECTORS) :].split('.')[0] for key in connectors})
    why = {
        'teacher': 'read from its own checkpoint.',
        'connectors': f'{", ".join(names)}: a new distillation starts its adapters anew.',
    }
    parts = {'teacher': {key: value for key, value in rest.items() if key.startswith('teacher.')}}
    parts['connectors'] = connectors
    for where, part in parts.items():
        if part:
            notes.append(Note('left out', where, f'{_size(part)}; {why[where]}'))
    other = {key: value for key, value in rest.items() if not any(key in part for part in parts.values())}
    if other:
        notes.append(Note('left out', 'other tensors', f'{_size(other)}: {", ".join(sorted(other)[:6])}.'))
    state = sorted(set(checkpoint) - {'meta', 'state_dict'}) if 'state_dict' in checkpoint else []
    if state:
        cure = 'of a training of other parameters: start with load_from, not with --resume.'
        notes.append(Note('left out', ', '.join(state), cure))
    return notes


def _size(tensors: Mapping[str, torch.Tensor]) -> str:
    return f'{len(tensors)} tensors, {count(sum(value.numel() for value in tensors.values()))} values'


def plain_student(config: Config) -> Config:
    """Return a config of the plain student of an MMRazor config; any other config as it is."""
    model = config.get('model') or {}
    if 'architecture' not in model:
        return config
    source = read_source(model['architecture'], 'architecture', [])
    scope = config.get('default_scope')
    return Config(dict(model=scoped(source, scope), default_scope=scope), filename=config.filename)
