"""What tests of several rooms share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)


class Bomb:
    """Runs ``touch FILE`` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f'touch {self.marker}',)


@pytest.fixture
def bomb(tmp_path: Path) -> Bomb:
    """Return an object whose pickle leaves a file ``bomb.marker`` where it runs."""
    return Bomb(tmp_path / 'executed')
