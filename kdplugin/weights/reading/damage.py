"""The errors for files that cannot be read as checkpoints, and why."""

from __future__ import annotations

import re
from pathlib import Path

from kdplugin.errors import CheckpointError

CONTAINERS = (b'PK', b'\x80')  # zip, and the bare pickle of old files


def refusal(error: Exception, name: str) -> CheckpointError:
    """Return the error for a pickle that asks for more than tensors."""
    wanted = re.search(r'GLOBAL (\S+)', str(error))
    reason = wanted[1] if wanted else str(error).split('WeightsUnpickler error:')[-1].strip().split('\n')[0]
    return CheckpointError(
        f'Expected plain tensors but {name} asks for more while loading, which could run code ({reason[:200]}). '
        'Nothing was executed. Convert it to .safetensors, or, if you trust its author, set trust_checkpoint=True '
        '(teacher=dict(..., trust_checkpoint=True), or trust_checkpoint=True at the top of the config).'
    )


def pickle_damage(error: Exception, head: bytes, name: str) -> CheckpointError:
    """Return the error for a file that ``torch.load`` cannot read; ``head`` are its first bytes."""
    if 'TorchScript' in str(error):
        return CheckpointError(
            f'Expected a dict of tensors in {name} but got a TorchScript program. '
            'Save model.state_dict() instead of the program.'
        )
    reason = f'{type(error).__name__}: {str(error)[:200]}'
    if isinstance(error, EOFError):
        reason = 'it ends too early'
    if head and not head.startswith(CONTAINERS):
        reason = f'it begins with {head!r}'
    return _no_room(error, name) or CheckpointError(
        f'Expected a checkpoint but {name} is damaged or not a PyTorch file ({reason}). Copy it again from its source.'
    )


def safetensors_damage(error: Exception, file: Path) -> CheckpointError:
    """Return the error for a file that safetensors refused; it shows text, such as a Git LFS pointer's."""
    with file.open('rb') as opened:
        head = opened.read(16)
    reason = f'it begins with {head!r}' if head.isascii() and head and 0 not in head[:8] else str(error)
    return _no_room(error, str(file)) or CheckpointError(
        f'Expected a safetensors file but {file} is damaged ({reason}). Copy it again from its source.'
    )


def _no_room(error: Exception, name: str) -> CheckpointError | None:
    """Return the error for a file that is larger than what the system maps."""
    if 'unable to mmap' not in str(error):
        return None
    return CheckpointError(
        f'Expected room to map {name} but the system refused it ({str(error)[:200]}). '
        'Use a machine with more memory, or a copy of the checkpoint in shards.'
    )
