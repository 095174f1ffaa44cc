"""A file backend for checkpoints: a file is whole or absent, and the old one goes after the new one is read back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import atomic_file, hash_file


class AtomicLocalBackend(LocalBackend):
    """Local files, written to a temporary name, synced, read back, then renamed.

    Raises:
        CheckpointError: what was read back is not what was written.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        with atomic_file(filepath) as temporary:
            with open(temporary, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            if hash_file(temporary) != hashlib.sha256(obj).hexdigest():
                raise CheckpointError(
                    f'Expected to read back what was written to {filepath} but got other bytes. '
                    'The disk is failing: choose another work_dir. The previous checkpoint is untouched.'
                )


register_backend('kdplugin_atomic', AtomicLocalBackend, force=True)
