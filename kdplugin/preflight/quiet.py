"""Keep the host from talking while models are built and looked at."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from mmengine.logging import MMLogger


@contextmanager
def logging_from(level: int) -> Iterator[None]:
    """Keep what mmengine logs below a level out of the log for the block, such as its looking for a type elsewhere."""
    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet(level: int) -> Iterator[None]:
    """Keep warnings out too: advice on training, and a line for each initialised tensor.

    What is printed, as COCO's reader does, goes to the standard error: the report alone is the standard output.
    """
    with logging_from(level), warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter('ignore')
        yield
