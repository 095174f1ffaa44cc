"""The lists of recipes that mmdet and mmseg ship, read once: mmengine reads a hundred files for each ``mmdet::...``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from mmengine.config import utils
from mmengine.fileio import load


@cache
def read_list(path: str) -> Any:
    """Return the content of a list of recipes."""
    return load(path)


@contextlib.contextmanager
def recipes_listed_once() -> Iterator[None]:
    """Let configs find those of other packages in lists that are kept, for the block."""
    original = utils.load
    utils.load = read_list
    try:
        yield
    finally:
        utils.load = original
