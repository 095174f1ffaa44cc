"""``torchrun`` with an exit code that says why it ended: ``python -m kdplugin.elastic``, arguments as torchrun's.

torchrun itself ends with 1 whatever happened. Here the code is that of the process that failed first: 75
(``kdplugin.hooks.stop_signals``) is a run that was stopped, saved what it did, and wants to be started again.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

STOPPED = os.EX_TEMPFAIL


def main(argv: list[str] | None = None) -> int:
    """Run torchrun; SIGUSR1 is passed on to the processes as SIGTERM, as torchrun does with SIGTERM itself."""
    signal.signal(signal.SIGUSR1, _as_sigterm)
    try:
        torchrun(argv)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode == STOPPED:
            return STOPPED
        print(error, file=sys.stderr)
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return STOPPED if error.sigval == signal.SIGTERM else 128 + error.sigval
    return 0


def _as_sigterm(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == '__main__':
    sys.exit(main())
