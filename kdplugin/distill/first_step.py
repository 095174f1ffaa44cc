"""What models of mmdet ask mmengine for while they train: how far the training is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mmengine.logging import MessageHub

COUNTERS = ('iter', 'epoch')
"""BoxInst and batch resizing ask for the first, TOOD for the second; a Runner gives them when it begins to train."""


@contextlib.contextmanager
def first_step() -> Iterator[None]:
    """Let models that ask find the first iteration of the first epoch in the block, unless a training is under way."""
    hub = MessageHub.get_current_instance()
    absent = [name for name in COUNTERS if hub.get_info(name) is None]
    for name in absent:
        hub.update_info(name, 0)
    try:
        yield
    finally:
        for name in absent:
            hub.pop_info(name, None)
