"""All processes of a run begin with the same weights and the same teacher, or it does not begin."""

from __future__ import annotations

from mmengine.dist import all_gather_object, get_world_size
from torch import nn

from kdplugin.distill.distiller import ADAPTERS, distillation_of
from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import hash_tensors

CURES = {
    'teacher': 'Copy one teacher checkpoint to every machine.',
    'student': 'Start every process with the same files and the same settings: projection reads its checkpoint anew in '
    'each of them.',
}


def start_hashes(model: nn.Module, *, sharded: bool = False) -> dict[str, str]:
    """Return the sha256 of each teacher's file and of all trained weights, adapters and projection included.

    Args:
        model: without its data-parallel wrapper.
        sharded: its parameters are pieces, which differ between processes by design.
    """
    distillation = distillation_of(model)
    teachers = distillation.teachers if distillation else {}
    hashes = {f'teacher {name}': teacher.sha256 for name, teacher in teachers.items()}
    if not sharded:
        parts: dict[str, dict[str, nn.Parameter]] = {'student': {}, 'student adapters': {}}
        for name, value in model.named_parameters():
            parts['student adapters' if name.startswith(f'{ADAPTERS}.') else 'student'][name] = value
        hashes.update({part: hash_tensors(values) for part, values in parts.items() if values})
    return hashes


def check_same_start(model: nn.Module, *, sharded: bool = False) -> None:
    """Compare the hashes of all processes once; alone, nothing is computed.

    Raises:
        CheckpointError: says what differs, and where.
    """
    if get_world_size() == 1:
        return
    everyone = all_gather_object(start_hashes(model, sharded=sharded))
    for part, expected in everyone[0].items():
        others = [rank for rank, hashes in enumerate(everyone) if hashes.get(part) != expected]
        if others:
            raise CheckpointError(
                f'Expected all {len(everyone)} processes to begin with the same {part} but those of rank {others} '
                f'differ from rank 0. {CURES[part.split()[0]]}'
            )
