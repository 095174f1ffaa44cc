"""Make the shared tiny models and runs importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from engine_fixtures import shared

__all__ = ['shared']
