"""Data workers that outlive the SIGTERM which Slurm sends to every process of a job when another job comes first.

PyTorch's workers end at SIGTERM, and the training then fails with "DataLoader worker is killed by signal: Terminated"
before it reaches the end of its iteration, where it would save. These ignore it as long as the training goes on.
"""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import signal
from functools import partial
from typing import Any

_leaving = mmap.mmap(-1, 1)
"""One byte that forked processes share: 1 from when the training process leaves, and wants its workers to end."""


@atexit.register
def _leave() -> None:
    _leaving[0] = 1


def keep_workers(loader: Any) -> None:
    """Let the workers that a data loader is going to fork ignore SIGTERM; spawned ones stay as they are."""
    forks = loader.multiprocessing_context is None and multiprocessing.get_start_method() == 'fork'
    if loader.num_workers > 0 and forks:
        loader.worker_init_fn = partial(_start, loader.worker_init_fn, os.getpid())


def _start(before: Any, parent: int, number: int) -> None:
    def terminated(*_: Any) -> None:
        if _leaving[0] or os.getppid() != parent:
            os._exit(0)

    signal.signal(signal.SIGTERM, terminated)
    if before is not None:
        before(number)
