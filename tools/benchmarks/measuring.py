"""What benchmarks share: a process of its own for each measurement, its peak memory, and results in a file."""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kdplugin.weights.reading.io import write_text

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


def in_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, which begins with this module's imports and nothing else."""
    context = get_context('forkserver')
    context.set_forkserver_preload(['__main__', 'mmseg.models'])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(call, *arguments).result()


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=2) + '\n')
