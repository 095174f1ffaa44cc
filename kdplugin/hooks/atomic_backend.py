"""A file backend for checkpoints: a file is whole, with its checksum, or absent; the old one goes after the new one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import atomic_file, hash_file
from kdplugin.weights.reading.seal import seal

FULL = (errno.ENOSPC, errno.EDQUOT)


class AtomicLocalBackend(LocalBackend):
    """Local files, sealed (``weights/reading/seal.py``), written to a temporary name, synced, read back, then renamed.

    Raises:
        CheckpointError: what was read back is not what was written, or the disk is full.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        parts = seal(obj)
        try:
            self._put(parts, filepath)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise CheckpointError(
                f'Expected room for the {sum(map(len, parts)):,} bytes of {filepath} but the disk is full or the quota '
                f'spent ({free_bytes(filepath):,} bytes free). Make room, then go on with --resume: the checkpoints '
                'before it are untouched.'
            ) from error

    @staticmethod
    def _put(parts: tuple[bytes | memoryview, bytes], filepath: str | Path) -> None:
        digest = hashlib.sha256()
        with atomic_file(filepath) as temporary:
            with open(temporary, 'wb') as file:
                for part in parts:
                    digest.update(part)
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            if hash_file(temporary) != digest.hexdigest():
                raise CheckpointError(
                    f'Expected to read back what was written to {filepath} but got other bytes. '
                    'The disk is failing: choose another work_dir. The previous checkpoint is untouched.'
                )


def free_bytes(path: str | Path) -> int:
    """Return how many bytes are free where a file is to be."""
    folder = next(parent for parent in Path(path).absolute().parents if parent.is_dir())
    return shutil.disk_usage(folder).free


def remove_leftovers(folder: str | Path) -> list[str]:
    """Remove what killed runs left half written in a folder, and return the names."""
    left = [path for path in Path(folder).glob('.*.pth.????????') if path.is_file()]
    for path in left:
        path.unlink(missing_ok=True)
    return sorted(path.name for path in left)


register_backend('kdplugin_atomic', AtomicLocalBackend, force=True)
