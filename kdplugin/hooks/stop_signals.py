"""SIGTERM and SIGUSR1 end a training at an iteration, with a checkpoint and an exit code that asks to be started again.

SIGTERM is what Slurm, torchrun and container platforms send before they kill; SIGUSR1 is what ``--signal=USR1@120``
of Slurm sends some time before. A signal may reach one process of many, so the processes agree on when to stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch import distributed

EXIT_CODE = os.EX_TEMPFAIL
"""75, of sysexits.h: a temporary failure, the same command may be tried again."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

_received: list[int] = []


class Stopped(SystemExit):
    """Ends a stopped training with ``EXIT_CODE``; what it did is saved."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Note SIGTERM and SIGUSR1 within the block instead of dying; does nothing outside the main thread.

    Ctrl-C and SIGINT end a run at once, as before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()


def _note(number: int, frame: Any) -> None:
    _received.append(number)


def received() -> str | None:
    """Return the name of the signal that asked this process to stop, if one did."""
    return signal.Signals(_received[0]).name if _received else None


class Agreement:
    """Tell all processes at the same iteration that one of them was asked to stop.

    Each iteration sends the own answer, one number through gloo, and reads what the iteration before sent: no process
    waits for the network unless it is slower than an iteration. Alone, a process knows at once.
    """

    def __init__(self) -> None:
        several = get_world_size() > 1
        self._group = distributed.new_group(backend='gloo') if several else None
        self._sent: tuple[Any, torch.Tensor] | None = None

    def reached(self) -> bool:
        """Return whether to stop now; every process asks once in each iteration and gets the same answer."""
        if self._group is None:
            return bool(_received)
        answer = self._arrived()
        mine = torch.tensor([int(bool(_received))])
        operation = distributed.ReduceOp.MAX
        self._sent = (distributed.all_reduce(mine, operation, self._group, async_op=True), mine)
        return answer

    def close(self) -> None:
        """Wait for the last answer."""
        self._arrived()
        self._sent = None

    def _arrived(self) -> bool:
        if self._sent is None:
            return False
        work, answer = self._sent
        work.wait()
        return bool(answer.item())
