"""Find the checkpoint from which a run goes on."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.logging import print_log

from kdplugin.errors import CheckpointError
from kdplugin.weights.reading.io import read_checkpoint
from kdplugin.weights.reading.seal import check_seal

POINTER = 'last_checkpoint'
PARTIAL = '_batch_'
"""In the name of a checkpoint from within an epoch: epoch_3_batch_120.pth is 120 batches after epoch 3."""


def latest_complete_checkpoint(work_dir: str | Path, also: Iterable[str | Path] = ()) -> Path | None:
    """Return the newest whole training checkpoint of a run, or None.

    Looks for names that end in a number, the iteration or epoch. A file whose checksum is wrong, that cannot be read,
    or that holds weights alone is passed over and named in a warning; one without a checksum, from another tool or an
    older version, is taken with a note.

    Args:
        work_dir: of the run. Where its file ``last_checkpoint`` points is looked at too.
        also: further folders, for a recipe that saves elsewhere (``out_dir``).
    """
    for path in candidates(work_dir, also):
        try:
            sealed = check_seal(path)
            if 'optimizer' in read_checkpoint(path, mmap=sealed):
                if not sealed:
                    _note(path)
                return path
            reason = f'Expected an optimizer in {path} but it holds weights alone.'
        except CheckpointError as error:
            reason = str(error)
        print_log(f'Not resumed from: {reason}', logger='current', level=logging.WARNING)
    return None


def candidates(work_dir: str | Path, also: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Yield the checkpoints of a run by their names, the newest first."""
    folders = {Path(folder).resolve() for folder in (work_dir, *also)}
    with contextlib.suppress(FileNotFoundError):
        pointed = (Path(work_dir) / POINTER).read_text().strip()
        folders |= {Path(pointed).resolve().parent} if pointed else set()
    found = [
        (progress, path)
        for folder in folders
        for path in folder.glob('*.pth')
        if (progress := progress_of(path)) and not path.name.startswith('best_')
    ]
    yield from (path for _, path in sorted(found, reverse=True))


def progress_of(path: Path) -> tuple[int, int] | None:
    """Return how far a checkpoint is by its name: iterations or epochs, and batches of the next epoch.

    Example:
        >>> progress_of(Path('epoch_3_batch_120.pth')), progress_of(Path('iter_400.pth')), progress_of(Path('a.pth'))
        ((3, 120), (400, 0), None)
    """
    found = re.search(rf'(\d+)(?:{PARTIAL}(\d+))?$', path.stem)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _note(path: Path) -> None:
    print_log(
        f'{path} has no checksum: another tool or an older version wrote it. It reads whole, so the run goes on from '
        'it; a flipped bit in a weight would not be noticed.',
        logger='current',
    )
