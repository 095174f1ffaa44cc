"""How much memory a process held at most."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path('/proc/self/status')


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes.

    On Linux from VmHWM: what getrusage tells of a process begins at the size of the one that started it.
    """
    if STATUS.is_file():
        found = re.search(r'^VmHWM:\s+(\d+) kB$', STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024
